"""Writes the model's files of a layer into a folder while the layer streams by. Nothing can be written elsewhere.

Only regular files and folders below `models/` are taken, under names that a build would accept; links, devices, hidden
names, pickles, code and compressed layers are refused. Members outside `models/`, such as the shell, are passed over.
Reads the tar formats that images of models come in: ustar and GNU with its long names.
"""

import os
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

from serving.modelcar.image import ROOT
from serving.modelcar.source import ModelRefused, check_member_name, refuse_suffix

_BLOCK = tarfile.BLOCKSIZE
_REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE)
_MAX_NAME_BYTES = 1 << 16
_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"


class LayerRefused(ValueError):
    """A layer has its digest but holds something that Liftlock does not put there. The image is not ours."""


class Placement:
    """The folder that several layers are unpacked into at once; no name may come twice."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bytes_written = 0
        self._lock = threading.Lock()
        self._seen: dict[str, str] = {}
        self._files: set[str] = set()

    @property
    def files(self) -> tuple[str, ...]:
        return tuple(sorted(self._files))

    def claim(self, name: str, is_file: bool) -> Path:
        """The path for a name below `models/`. Raises LayerRefused where the name, or one like it, is taken."""
        parts = name.split("/")
        paths = ["/".join(parts[: depth + 1]) for depth in range(len(parts))]
        with self._lock:
            for path in paths:
                if self._seen.setdefault(path.casefold(), path) != path:
                    raise LayerRefused(f"the image holds {path} and {self._seen[path.casefold()]}; {_ADVICE}")
            if any(path in self._files for path in paths) or (is_file and (self.folder / name).exists()):
                raise LayerRefused(f"the image holds {name} twice or below a file; {_ADVICE}")
            target = self.folder / name
            (target.parent if is_file else target).mkdir(parents=True, exist_ok=True)
            if is_file:
                self._files.add(name)
        return target

    def wrote(self, count: int) -> None:
        with self._lock:
            self.bytes_written += count


_ADVICE = "use an image that Liftlock built"


def unpack(blocks: Iterator[memoryview | bytes], placement: Placement, models_only: bool = False) -> None:
    """Reads the blocks to their end, so that whoever hashes them sees all. With `models_only` a member outside `models/`
    is refused, not passed over. Raises LayerRefused after the last block.
    """
    stream = _Stream(blocks)
    refused: LayerRefused | None = None
    try:
        _unpack(stream, placement, models_only)
    except LayerRefused as error:
        refused = error
    except ModelRefused as error:
        refused = LayerRefused(f"the image holds what a build refuses: {error}")
    except (tarfile.TarError, ValueError) as error:
        refused = LayerRefused(f"the layer is no tar that can be read ({error}); {_ADVICE}")
    stream.drain()  # the digest is judged first: a damaged layer must not be reported as a hostile one
    if refused:
        raise refused


def _unpack(stream: "_Stream", placement: Placement, models_only: bool) -> None:
    long_name: str | None = None
    first = True
    while header := stream.take(_BLOCK):
        if first and header.startswith((_GZIP, _ZSTD)):
            raise LayerRefused(f"the layer is compressed; only plain tar is read; {_ADVICE}")
        first = False
        if not any(header):
            return
        member = tarfile.TarInfo.frombuf(header, "utf-8", "strict")
        if member.size < 0:
            raise LayerRefused(f"the member {member.name!r} has a negative size; {_ADVICE}")
        if member.type == tarfile.GNUTYPE_LONGNAME:
            long_name = _long_name(stream, member.size)
            continue
        name, long_name = (long_name or member.name).rstrip("/"), None
        if models_only and name != ROOT and not name.startswith(f"{ROOT}/"):
            raise LayerRefused(f"the member {name!r} lies outside {ROOT}/; {_ADVICE}")
        _member(stream, member, name, placement)


def _member(stream: "_Stream", member: tarfile.TarInfo, name: str, placement: Placement) -> None:
    size = member.size if member.type in _REGULAR else 0
    if name == ROOT and member.isdir():
        return
    if not name.startswith(f"{ROOT}/"):
        if member.type not in (*_REGULAR, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE):
            raise LayerRefused(f"the member {name!r} has the type {member.type!r}; {_ADVICE}")
        stream.skip(_padded(size))
        return
    inner = name.removeprefix(f"{ROOT}/")
    check_member_name(inner)
    if any(part.startswith(".") for part in inner.split("/")):
        raise LayerRefused(f"the member {name!r} is hidden or marks a deletion; {_ADVICE}")
    if member.isdir():
        placement.claim(inner, is_file=False)
    elif member.type in _REGULAR:
        refuse_suffix(inner)
        _write(stream, size, placement.claim(inner, is_file=True))
        stream.skip(_padded(size) - size)
        placement.wrote(size)
    else:
        raise LayerRefused(f"the member {name!r} has the type {member.type!r}, which no model needs; {_ADVICE}")


def _write(stream: "_Stream", size: int, path: Path) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
    with open(descriptor, "wb", buffering=0) as file:  # noqa: PTH123 - a descriptor, not a path
        for block in stream.pass_on(size):
            file.write(block)


def _long_name(stream: "_Stream", size: int) -> str:
    if size > _MAX_NAME_BYTES:
        raise LayerRefused(f"a member's name has {size} bytes; {_ADVICE}")
    return stream.take(_padded(size))[:size].rstrip(b"\0").decode("utf-8", "strict")


def _padded(size: int) -> int:
    return size + -size % _BLOCK


class _Stream:
    """Cuts the blocks where the tar asks; a large file's blocks pass without being copied."""

    def __init__(self, blocks: Iterator[memoryview | bytes]) -> None:
        self._blocks = blocks
        self._rest = memoryview(b"")

    def pass_on(self, size: int) -> Iterator[memoryview]:
        """`size` bytes, each block valid until the next. Raises LayerRefused where the layer ends before."""
        while size:
            if not self._rest:
                block = next(self._blocks, b"")
                if not block:
                    raise LayerRefused(f"the layer ends in the middle of a member; {_ADVICE}")
                self._rest = memoryview(block)
            part, self._rest = self._rest[:size], self._rest[size:]
            size -= len(part)
            yield part

    def take(self, size: int) -> bytes:
        return b"".join(bytes(part) for part in self.pass_on(size))

    def skip(self, size: int) -> None:
        for _ in self.pass_on(size):
            pass

    def drain(self) -> None:
        for _ in self._blocks:
            pass
