"""An image layer as a tar that exists only while it is read, from the files of a model.

Tar headers carry no time, owner or mode of the machine that builds, and members are in the order of their names, so the
bytes are a function of the files' names and bytes alone.
"""

import hashlib
import os
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import cast

from serving.modelcar.source import SourceFile

CHUNK = 1 << 20
_BLOCK = tarfile.BLOCKSIZE


class ModelChanged(RuntimeError):
    """A file changed while the image was built, so its bytes are not the ones that were checked; build again."""


@dataclass(frozen=True)
class Member:
    """One tar entry: a file of the model, a small file by its bytes, a link, or, with none of them, a folder."""

    name: str
    source: SourceFile | None = None
    data: bytes | None = None
    link: str = ""
    executable: bool = False

    @property
    def header(self) -> bytes:
        info = tarfile.TarInfo(self.name)
        info.mtime = info.uid = info.gid = 0
        info.uname = info.gname = ""
        info.size = self.content_size
        if self.link:
            info.type, info.mode, info.linkname = tarfile.SYMTYPE, 0o777, self.link
        elif self.source is None and self.data is None:
            info.type, info.mode = tarfile.DIRTYPE, 0o755
        else:
            info.mode = 0o755 if self.executable else 0o644
        return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "strict")

    @property
    def content_size(self) -> int:
        if self.source is not None:
            return self.source.size
        return len(self.data or b"")

    @property
    def padding(self) -> bytes:
        return bytes(-self.content_size % _BLOCK)

    @property
    def size(self) -> int:
        return len(self.header) + self.content_size + len(self.padding)


class Layer:
    """Its size is known at once, its digest after one pass over the files."""

    def __init__(self, title: str, files: Mapping[str, SourceFile], extra: Iterable[Member] = ()) -> None:
        """`files` maps member names such as `models/config.json` to files; parent folders are added."""
        members = [*extra, *(Member(name, file) for name, file in files.items())]
        named = {member.name for member in members}
        folders = {str(parent) for name in named for parent in PurePosixPath(name).parents} - {".", *named}
        members += [Member(name) for name in folders]
        self.title = title
        self.members = tuple(sorted(members, key=lambda member: member.name))
        self.size = sum(member.size for member in self.members) + 2 * _BLOCK
        self.known_digest: str | None = None

    @property
    def sources(self) -> tuple[SourceFile, ...]:
        return tuple(member.source for member in self.members if member.source)

    @property
    def digest(self) -> str:
        """Read from the files on first use, unless a stream was read to its end before."""
        if self.known_digest is None:
            hasher = hashlib.sha256()
            for block in self._blocks(reuse=True):
                hasher.update(block)
            self.known_digest = f"sha256:{hasher.hexdigest()}"
        return self.known_digest

    def stream(self) -> Iterator[bytes]:
        """The tar in blocks of at most CHUNK bytes, hashed as they pass. May be called again. Raises ModelChanged."""
        hasher = hashlib.sha256()
        for block in self._blocks(reuse=False):
            hasher.update(block)
            yield cast(bytes, block)
        digest = f"sha256:{hasher.hexdigest()}"
        if self.known_digest not in (None, digest):
            raise ModelChanged(f"layer {self.title} read as {digest} after {self.known_digest}; build the image again")
        self.known_digest = digest

    def send(self) -> Iterator[bytes]:
        """The tar for a receiver that judges the digest itself: not hashed again, each block valid until the next.

        Raises ModelChanged where a file's stat changed.
        """
        for block in self._blocks(reuse=True):
            yield cast(bytes, block)  # a memoryview, which sockets and hashes take as bytes

    def _blocks(self, reuse: bool) -> Iterator[bytes | memoryview]:
        for member in self.members:
            yield member.header
            if member.source is not None:
                yield from _reused_blocks(member.source) if reuse else _file_blocks(member.source)
            elif member.data:
                yield member.data
            if member.padding:
                yield member.padding
        yield bytes(2 * _BLOCK)  # the end mark of a tar


def _file_blocks(source: SourceFile) -> Iterator[bytes]:
    for block in _reused_blocks(source):
        yield bytes(block)


def _reused_blocks(source: SourceFile) -> Iterator[memoryview]:
    """Each block lies in the same buffer as the one before."""
    try:
        opened = source.path.open("rb", buffering=0)
    except FileNotFoundError as error:
        raise ModelChanged(f"{source.path} is gone since it was checked; restore it and build again") from error
    buffer = memoryview(bytearray(min(CHUNK, source.size + 1)))
    with opened as file:
        _check_unchanged(source, os.fstat(file.fileno()))
        while count := file.readinto(buffer):
            yield buffer[:count]
        _check_unchanged(source, os.fstat(file.fileno()))


def _check_unchanged(source: SourceFile, now: os.stat_result) -> None:
    if (now.st_size, now.st_mtime_ns, now.st_ino) != (source.size, source.mtime_ns, source.inode):
        raise ModelChanged(f"{source.path} changed while it was read; wait until nothing writes to it and build again")
