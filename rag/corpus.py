"""Read the documents to be indexed: Markdown and plain text files in UTF-8. It follows no links and fetches nothing."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from rag.chunk import Document

SUFFIXES = (".md", ".txt")


class CorpusError(Exception):
    """The documents cannot be indexed as they are; mend the named path or leave it out."""


def read_documents(paths: Sequence[Path], root: Path) -> tuple[Document, ...]:
    """Files as named, and folders recursively (hidden files and folders left out), each file once, sorted by source.

    A document's source is its path below `root`. Raises CorpusError for a path that is missing, outside `root`, of
    another suffix, not UTF-8 or empty, and for a folder without any document.
    """
    root = root.resolve()
    files = {file.resolve() for path in paths for file in _files(path)}
    return tuple(sorted((_read(file, root) for file in files), key=lambda document: document.source))


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        if path.suffix not in SUFFIXES:
            raise CorpusError(f"{path} is not a document: a name ending in {' or '.join(SUFFIXES)} is required")
        yield path
        return
    if not path.is_dir():
        raise CorpusError(f"{path} is not there; name files or folders that exist")
    found = [file for file in path.rglob("*") if file.suffix in SUFFIXES and file.is_file()]
    visible = [file for file in found if not any(part.startswith(".") for part in file.relative_to(path).parts)]
    if not visible:
        raise CorpusError(f"{path} holds no {' or '.join(SUFFIXES)} file; name a folder with documents")
    yield from visible


def _read(file: Path, root: Path) -> Document:
    if not file.is_relative_to(root):
        raise CorpusError(f"{file} lies outside {root}; sources are named relative to it, so choose a root above both")
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise CorpusError(f"{file} is not UTF-8 (byte {error.start}); convert it or leave it out") from error
    if "\0" in text:
        raise CorpusError(f"{file} is binary (it holds a NUL byte); leave it out")
    if not text.strip():
        raise CorpusError(f"{file} is empty; write it or leave it out")
    return Document(file.relative_to(root).as_posix(), text)
