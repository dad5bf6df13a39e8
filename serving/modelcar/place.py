"""Places an adapter from a modelcar into a folder that an engine can load it from, verified by digest.

A placed folder is never changed: an engine may have it open. A new version goes to a new folder.
"""

import glob
import hashlib
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO, cast

from serving.modelcar import blobs
from serving.modelcar.image import ROOT, adapter_title
from serving.modelcar.layout import blob_refs, read_manifest
from serving.modelcar.model import LayerRef
from serving.modelcar.source import ADAPTER_FILES, ADAPTERS_FOLDER

_LOCK = ".liftlock-place.lock"
_REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE)


class AdapterMissing(LookupError):
    """The image has no adapter of that name."""


class LayerRefused(ValueError):
    """The adapter layer has its digest but holds something that Liftlock does not put there. The image is not ours."""


class DestinationTaken(FileExistsError):
    """The destination holds other bytes than the adapter."""


def place_adapter(layout: Path, digest: str, adapter_name: str, dest: Path) -> None:
    """Unpacks the adapter of the image `digest` into the folder `dest`, which appears complete or not at all.

    Does nothing where `dest` holds the same files. Raises AdapterMissing, DigestMismatch, LayerRefused,
    DestinationTaken.
    """
    layer = _adapter_layer(layout, digest, adapter_name)
    dest.parent.mkdir(parents=True, exist_ok=True)
    with blobs.locked(dest.parent / _LOCK):
        partial = f".{dest.name}.liftlock-partial-"
        for left_behind in dest.parent.glob(f"{glob.escape(partial)}*"):
            shutil.rmtree(left_behind)
        with tempfile.TemporaryDirectory(prefix=partial, dir=dest.parent) as temporary:
            folder = Path(temporary) / "adapter"
            folder.mkdir()
            _unpack_verified(layout, layer, adapter_name, folder)
            _settle(folder, dest)


def _adapter_layer(layout: Path, digest: str, adapter_name: str) -> LayerRef:
    layers = blob_refs(read_manifest(layout, digest))
    for layer in layers:
        if layer.title == adapter_title(adapter_name):
            return layer
    prefix = f"{ADAPTERS_FOLDER}/"
    names = ", ".join(layer.title.removeprefix(prefix) for layer in layers if layer.title.startswith(prefix))
    raise AdapterMissing(
        f"image {digest} has no adapter {adapter_name!r}; it has: {names or 'none'}; name one of these"
    )


def _settle(folder: Path, dest: Path) -> None:
    if dest.is_symlink() or (dest.exists() and not dest.is_dir()):
        raise DestinationTaken(f"{dest} is not a folder; the adapter needs one of its own; choose another path")
    if dest.is_dir() and any(dest.iterdir()):
        if _hashes(dest) != _hashes(folder):
            raise DestinationTaken(f"{dest} holds other files than the adapter; remove it or choose another folder")
        return
    folder.rename(dest)


def _hashes(folder: Path) -> dict[str, str]:
    """sha256 by name; an entry that is not a regular file has an empty one, so it is equal to no file."""
    return {path.name: _hash(path) if path.is_file() and not path.is_symlink() else "" for path in folder.iterdir()}


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unpack_verified(layout: Path, layer: LayerRef, adapter_name: str, folder: Path) -> None:
    """The digest is judged before what the tar holds: a damaged blob must not be reported as a hostile one."""
    blocks = _Blocks(blobs.stream_blob(layout, layer.digest, layer.size))
    refused: LayerRefused | None = None
    try:
        _unpack(blocks, f"{ROOT}/{adapter_title(adapter_name)}", folder)
    except LayerRefused as error:
        refused = error
    except (tarfile.TarError, ValueError, OverflowError) as error:
        refused = _refusal(f"what tarfile cannot read ({error})")
    blocks.drain()
    if refused:
        raise refused


class _Blocks:
    """The blob as the file object that tarfile reads; all of it must be read for its digest to be judged."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks

    def read(self, _size: int) -> bytes:
        """At most blobs.CHUNK bytes, which is what tarfile asks for: see bufsize."""
        return next(self._blocks, b"")

    def drain(self) -> None:
        for _ in self._blocks:
            pass


def _unpack(blocks: _Blocks, prefix: str, folder: Path) -> None:
    """Writes the regular files directly below `prefix`. Raises LayerRefused for anything else but their folders."""
    folders = {prefix, *(str(parent) for parent in PurePosixPath(prefix).parents)} - {"."}
    with tarfile.open(fileobj=cast(BinaryIO, blocks), mode="r|", bufsize=blobs.CHUNK) as tar:
        for member in tar:
            if member.isdir() and member.name in folders:
                continue
            parent, _, name = member.name.rpartition("/")
            if parent != prefix or name not in ADAPTER_FILES or member.type not in _REGULAR or member.issparse():
                raise _refusal(f"the member {member.name!r} of type {member.type!r}")
            if (folder / name).exists():
                raise _refusal(f"the member {member.name!r} twice")
            _write(cast(IO[bytes], tar.extractfile(member)), folder / name)
    missing = {"adapter_config.json", "adapter_model.safetensors"} - {path.name for path in folder.iterdir()}
    if missing:
        raise _refusal(f"no {' and no '.join(sorted(missing))}")


def _refusal(found: str) -> LayerRefused:
    return LayerRefused(
        f"the adapter layer holds {found}; only the files {', '.join(ADAPTER_FILES)} in the adapter's own folder are "
        "placed; use an image that Liftlock built"
    )


def _write(content: IO[bytes], path: Path) -> None:
    with path.open("xb") as file:
        shutil.copyfileobj(content, file, blobs.CHUNK)
