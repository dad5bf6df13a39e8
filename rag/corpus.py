"""Find the documents to be indexed: Markdown, HTML, PDF, text and source code. It follows no links and fetches nothing.

A folder that Git tracks gives what Git tracks or would; any other gives its visible files. What cannot be read is named
with the reason when it is read, and the rest goes on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rag.chunk import Document
from rag.convert import ConversionFailed, html_to_markdown, pdf_to_markdown
from rag.git import tracked_files

KINDS = {
    "markdown": (".md", ".markdown"),
    "html": (".html", ".htm", ".xhtml"),
    "pdf": (".pdf",),
    "text": (".txt", ".rst", ".adoc", ".log"),
    "code": (".py", ".js", ".ts", ".tsx", ".go", ".rs", ".java", ".c", ".h", ".cc", ".cpp", ".hpp", ".sh", ".sql", ".rb",
             ".yaml", ".yml", ".toml", ".json", ".tf"),
}  # fmt: skip
_KIND_OF = {suffix: kind for kind, suffixes in KINDS.items() for suffix in suffixes}
MAX_BYTES = 20 << 20
MAX_LINE = 100_000  # characters; generated files and data have longer lines, documents do not


class CorpusError(Exception):
    """The paths that were named lead to nothing that can be indexed."""


class Unreadable(Exception):
    """One document cannot be indexed as it is; the message says why. The others can."""


@dataclass(frozen=True)
class File:
    """A document's file. `source` is its path below the root, as answers cite it."""

    path: Path
    source: str
    kind: str

    def digest(self) -> str:
        """sha256 of the bytes, in hex; of a file that cannot be read, a text that no content has."""
        try:
            with self.path.open("rb") as content:
                return hashlib.file_digest(content, "sha256").hexdigest()
        except OSError as error:
            return f"unreadable: {error.strerror}"

    def read(self) -> Document:
        """Raises Unreadable."""
        try:
            size = self.path.stat().st_size
            if size > MAX_BYTES:
                raise Unreadable(f"{self.source} has {size >> 20} MB; at most {MAX_BYTES >> 20} MB are read")
            content = self.path.read_bytes()
            text = self._text(content)
        except OSError as error:
            raise Unreadable(f"{self.source} cannot be read: {error.strerror}") from error
        except ConversionFailed as error:
            raise Unreadable(f"{self.source} cannot be read: {error}") from error
        if not text.strip():
            raise Unreadable(f"{self.source} is empty{' (a scan without text?)' if self.kind == 'pdf' else ''}")
        return Document(self.source, text, self.kind)

    def _text(self, content: bytes) -> str:
        if self.kind == "pdf":
            return pdf_to_markdown(self.path)
        text = self._decoded(content)
        return html_to_markdown(text) if self.kind == "html" else text

    def _decoded(self, content: bytes) -> str:
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise Unreadable(f"{self.source} is not UTF-8 (byte {error.start})") from error
        if "\0" in text:
            raise Unreadable(f"{self.source} is binary (it holds a NUL byte)")
        if (longest := max(map(len, text.split("\n")))) > MAX_LINE:
            raise Unreadable(f"{self.source} has a line of {longest} characters; at most {MAX_LINE} are read")
        return text


def find_files(paths: Sequence[Path], root: Path) -> tuple[File, ...]:
    """Files as named, and folders recursively, each file once, sorted by source.

    Raises CorpusError for a path that is missing, outside `root` or of no known kind, and for a folder without a document.
    """
    root = root.resolve()
    found = {file.resolve() for path in paths for file in _files(path)}
    return tuple(sorted((_file(path, root) for path in found), key=lambda file: file.source))


def _file(path: Path, root: Path) -> File:
    if not path.is_relative_to(root):
        raise CorpusError(f"{path} lies outside {root}; sources are named relative to it, so choose a root above both")
    return File(path, path.relative_to(root).as_posix(), _KIND_OF[path.suffix.lower()])


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        if path.suffix.lower() not in _KIND_OF:
            raise CorpusError(f"{path} is not a document: a name ending in {', '.join(sorted(_KIND_OF))} is required")
        yield path
        return
    if not path.is_dir():
        raise CorpusError(f"{path} is not there; name files or folders that exist")
    known = [file for file in _listed(path) if file.suffix.lower() in _KIND_OF and file.is_file()]
    if not known:
        raise CorpusError(f"{path} holds no document ({', '.join(sorted(_KIND_OF))}); name a folder that does")
    yield from known


def _listed(folder: Path) -> list[Path]:
    """Git's own list, so that what it ignores is left out; elsewhere every file that is not hidden."""
    if (folder / ".git").exists() and (tracked := tracked_files(folder)) is not None:
        return tracked
    found = (file for file in folder.rglob("*") if not file.is_symlink())
    return [file for file in found if not any(part.startswith(".") for part in file.relative_to(folder).parts)]
