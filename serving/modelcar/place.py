"""Places an adapter from a modelcar into a folder that an engine can load it from, verified by digest.

A placed folder is never changed: an engine may have it open. A new version goes to a new folder.
"""

import glob
import hashlib
import shutil
import tempfile
from pathlib import Path

from serving.modelcar import blobs
from serving.modelcar.image import adapter_title
from serving.modelcar.layout import blob_refs, read_manifest
from serving.modelcar.model import LayerRef
from serving.modelcar.source import ADAPTER_FILES, ADAPTERS_FOLDER
from serving.modelcar.unpack import LayerRefused, Placement, unpack

_NEEDED = {"adapter_config.json", "adapter_model.safetensors"}
_LOCK = ".liftlock-place.lock"


class AdapterMissing(LookupError):
    """The image has no adapter of that name."""


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
            _settle(_unpack_verified(layout, layer, adapter_name, folder), dest)


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


def _unpack_verified(layout: Path, layer: LayerRef, adapter_name: str, folder: Path) -> Path:
    """The adapter's own folder below `folder`, holding all of its files and nothing else."""
    placement = Placement(folder)
    unpack(blobs.stream_blob(layout, layer.digest, layer.size), placement, models_only=True)
    inner = adapter_title(adapter_name)
    names = {path.name for path in (folder / inner).iterdir()} if (folder / inner).is_dir() else set()
    own = {file.removeprefix(f"{inner}/") for file in placement.files}
    if own != names or not own >= _NEEDED or own - set(ADAPTER_FILES):
        raise LayerRefused(
            f"the adapter layer holds {', '.join(placement.files) or 'no files'}; only {', '.join(ADAPTER_FILES)} in "
            f"{inner} are placed, the first two always; use an image that Liftlock built"
        )
    return folder / inner
