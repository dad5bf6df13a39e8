"""Finding and reading documents: which files, in which order, and what is said of those that cannot be read."""

import io
import subprocess
from pathlib import Path

import pytest
from pypdf import PdfWriter

from rag.chunk import Document
from rag.corpus import MAX_BYTES, CorpusError, Unreadable, find_files
from tests.fix_pdf import pdf_of


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def read(path: Path) -> Document:
    (file,) = find_files([path], path.parent)
    return file.read()


def test_folders_are_read_recursively_and_sorted_each_file_once(tmp_path: Path) -> None:
    files = {"docs/b.md": "B", "docs/deep/a.txt": "A", "docs/code.py": "x", "README.md": "R", "docs/.hidden/c.md": "C"}
    write(tmp_path, files | {"docs/picture.png": "no"})
    found = find_files([tmp_path / "docs", tmp_path / "README.md", tmp_path / "docs" / "b.md"], tmp_path)
    assert [(file.source, file.kind) for file in found] == [
        ("README.md", "markdown"), ("docs/b.md", "markdown"), ("docs/code.py", "code"), ("docs/deep/a.txt", "text"),
    ]  # fmt: skip
    assert [file.read().text for file in found] == ["R", "B", "x", "A"]


def test_of_a_git_checkout_what_git_ignores_is_left_out(tmp_path: Path) -> None:
    write(tmp_path, {"a.md": "A", "new.md": "N", "build/out.md": "O", ".gitignore": "build/\n"})
    for argv in (["init", "-q"], ["add", "a.md"]):
        subprocess.run(["git", "-C", tmp_path, *argv], check=True)
    assert [file.source for file in find_files([tmp_path], tmp_path)] == ["a.md", "new.md"]


def test_a_byte_order_mark_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_bytes("\ufeffGrüße".encode())
    assert read(tmp_path / "a.md") == Document("a.md", "Grüße", "markdown")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("bad.md", b"\xff\xfe\x00", r"bad\.md is not UTF-8 \(byte 0\)"),
        ("bad.html", b"<p>ok \xe9</p>", r"bad\.html is not UTF-8 \(byte 6\)"),
        ("bad.md", b"a\0b", r"bad\.md is binary"),
        ("bad.txt", b" \n\t", r"bad\.txt is empty"),
        ("bad.md", b"", r"bad\.md is empty"),
        ("bad.json", b"x" * 100_001, r"a line of 100001 characters"),
        ("bad.pdf", b"%PDF-1.7 nothing more", r"bad\.pdf cannot be read: not a PDF"),
        ("bad.pdf", b"MZ\x90\0 a program", r"not a PDF that can be read"),
        ("bad.html", b"<script>alert(1)</script>", r"bad\.html is empty"),
    ],
)
def test_a_file_that_is_no_document_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(Unreadable, match=message):
        read(tmp_path / name)


def test_a_huge_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "huge.txt").open("wb") as file:
        file.truncate(100 << 20)  # one line of 100 MB, sparse
    with pytest.raises(Unreadable, match=rf"huge\.txt has 100 MB; at most {MAX_BYTES >> 20} MB are read"):
        read(tmp_path / "huge.txt")


def test_a_pdf_is_read_page_by_page(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(pdf_of("The margin bounds the loss.", "One command undoes it."))
    assert read(tmp_path / "a.pdf").text == (
        "# Page 1\n\nThe margin bounds the loss.\n\n# Page 2\n\nOne command undoes it."
    )


def test_a_cut_and_an_encrypted_and_an_empty_pdf_are_named(tmp_path: Path) -> None:
    (tmp_path / "cut.pdf").write_bytes(pdf_of("Some text.")[:200])
    writer, locked, blank = PdfWriter(), io.BytesIO(), io.BytesIO()
    writer.add_blank_page(200, 200)
    writer.write(blank)
    writer.encrypt("secret", algorithm="RC4-128")
    writer.write(locked)
    (tmp_path / "locked.pdf").write_bytes(locked.getvalue())
    (tmp_path / "blank.pdf").write_bytes(blank.getvalue())
    for name, message in [
        ("cut", "not a PDF that"),
        ("locked", "not a PDF that.*decrypt"),
        ("blank", "a scan without"),
    ]:
        with pytest.raises(Unreadable, match=message):
            read(tmp_path / f"{name}.pdf")


def test_html_keeps_its_structure_and_loses_what_is_no_content(tmp_path: Path) -> None:
    page = """<html><head><title>Gate</title><style>p{}</style></head><body><nav>Home</nav><script>x()</script>
    <h1>Gate</h1><p>A <b>margin</b> <a href="/x">bounds</a>&nbsp;it.</p><h2>Table</h2>
    <table><tr><th>a</th><th>b</th></tr><tr><td>1</td><td>2</td></tr></table><pre>run\n  it</pre>
    <footer>Imprint</footer></body></html>"""
    (tmp_path / "a.html").write_text(page)
    text = read(tmp_path / "a.html").text
    for kept in ("# Gate\n", "A **margin** bounds it.", "## Table", "| a | b |", "| 1 | 2 |", "run\n  it"):
        assert kept in text
    for lost in ("Home", "x()", "Imprint", "p{}", "/x"):
        assert lost not in text


def test_paths_that_lead_to_no_document_are_named(tmp_path: Path) -> None:
    write(tmp_path, {"pictures/a.png": "x", "a.md": "text"})
    for path, message in [
        ("nowhere", "is not there"),
        ("pictures", "holds no document"),
        ("pictures/a.png", "is not a doc"),
    ]:
        with pytest.raises(CorpusError, match=message):
            find_files([tmp_path / path], tmp_path)
    with pytest.raises(CorpusError, match="lies outside"):
        find_files([tmp_path / "a.md"], tmp_path / "pictures")
