"""Reading documents: which files, in which order, and what is said of those that cannot be read."""

from pathlib import Path

import pytest

from rag.chunk import Document
from rag.corpus import CorpusError, read_documents


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def test_folders_are_read_recursively_and_sorted_each_file_once(tmp_path: Path) -> None:
    files = {"docs/b.md": "B", "docs/deep/a.txt": "A", "docs/code.py": "x", "README.md": "R", "docs/.git/c.md": "C"}
    write(tmp_path, files)
    found = read_documents([tmp_path / "docs", tmp_path / "README.md", tmp_path / "docs" / "b.md"], tmp_path)
    assert found == (Document("README.md", "R"), Document("docs/b.md", "B"), Document("docs/deep/a.txt", "A"))


def test_a_byte_order_mark_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_bytes("\ufeffGrüße".encode())
    assert read_documents([tmp_path], tmp_path) == (Document("a.md", "Grüße"),)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"\xff\xfe\x00", "is not UTF-8 .byte 0."), (b"a\0b", "is binary"), (b" \n\t", "is empty")],
)
def test_a_file_that_is_no_text_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "bad.md").write_bytes(content)
    with pytest.raises(CorpusError, match=rf"bad\.md {message}.*leave it out"):
        read_documents([tmp_path], tmp_path)


def test_paths_that_lead_to_no_document_are_named(tmp_path: Path) -> None:
    write(tmp_path, {"code/a.py": "x", "a.md": "text"})
    for path, message in [("nowhere", "is not there"), ("code", "holds no .md"), ("code/a.py", "is not a document")]:
        with pytest.raises(CorpusError, match=message):
            read_documents([tmp_path / path], tmp_path)
    with pytest.raises(CorpusError, match="lies outside"):
        read_documents([tmp_path / "a.md"], tmp_path / "code")
