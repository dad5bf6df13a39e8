"""Brings a modelcar's model into a folder: each layer is fetched, verified by digest and placed in one pass.

The folder appears complete or not at all; a killed pull's leavings are removed by the next. Files are not flushed to
disk one by one: after a power cut, verify the folder or pull again.
"""

import fcntl
import glob
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from serving.modelcar.image import ROOT
from serving.modelcar.layout import blob_refs, checked_manifest
from serving.modelcar.model import LayerRef
from serving.modelcar.parallel import Check, run_all
from serving.modelcar.place import AdapterMissing, DestinationTaken
from serving.modelcar.push import STREAMS, Progress, Report
from serving.modelcar.shell import TITLE as SHELL_TITLE
from serving.modelcar.store import ImageStore
from serving.modelcar.unpack import LayerRefused, Placement, unpack


@dataclass(frozen=True)
class Pulled:
    """What lies in the folder: the image's digest, the files' names below it, and their bytes."""

    digest: str
    folder: str
    files: tuple[str, ...]
    bytes_placed: int


def pull(
    store: ImageStore,
    reference: str,
    destination: Path,
    *,
    only: Sequence[str] = (),
    streams: int = STREAMS,
    progress: Progress | None = None,
) -> Pulled:
    """Places the files of `models/` of the image that `reference` (a digest or tag) names into `destination`.

    `only` takes layers by title, such as `adapters/router`; without it all but the shell are taken. Memory is a buffer a
    stream. Raises ImageMissing, DigestMismatch, LayerRefused, LayoutInvalid, AdapterMissing, DestinationTaken,
    RegistryFailed.
    """
    _refuse_taken(destination)
    document = store.get_manifest(reference)
    refs = blob_refs(checked_manifest(document.json(), document.digest, store.name))[1:]
    chosen = _chosen(refs, only, document.digest)
    destination.parent.mkdir(parents=True, exist_ok=True)
    with _partial_folder(destination) as folder:
        placement = Placement(folder)
        report = Report(progress, sum(ref.size for ref in chosen))
        run_all([partial(_place, store, ref, placement, report.of(n)) for n, ref in enumerate(chosen)], streams)
        if not placement.files:
            raise LayerRefused(f"image {document.digest} holds no file below {ROOT}/; name a modelcar")
        _refuse_taken(destination)
        folder.rename(destination)
    return Pulled(document.digest, str(destination), placement.files, placement.bytes_written)


def _chosen(refs: Sequence[LayerRef], only: Sequence[str], digest: str) -> list[LayerRef]:
    titles = {ref.title for ref in refs}
    missing = [title for title in only if title not in titles]
    if missing:
        raise AdapterMissing(
            f"image {digest} has no layer {', '.join(missing)}; it has: {', '.join(sorted(titles - {''})) or 'no titles'}"
        )
    return [ref for ref in refs if (ref.title in only if only else ref.title != SHELL_TITLE)]


def _place(store: ImageStore, ref: LayerRef, placement: Placement, report: Callable[[int], None], check: Check) -> None:
    def blocks() -> Iterator[memoryview | bytes]:
        done = 0
        for block in store.blob_blocks(ref.digest, ref.size):
            check()
            yield block
            done += len(block)
            report(done)

    unpack(blocks(), placement)


def _refuse_taken(destination: Path) -> None:
    if destination.is_symlink() or (destination.exists() and not destination.is_dir()):
        raise DestinationTaken(f"{destination} is not a folder; the model needs one of its own; choose another path")
    if destination.is_dir() and any(destination.iterdir()):
        raise DestinationTaken(f"{destination} is not empty; remove it or choose another folder")


@contextmanager
def _partial_folder(destination: Path) -> Iterator[Path]:
    """A folder beside the destination that is locked while it is filled, and removed unless it was renamed."""
    prefix = f".{destination.name}.liftlock-partial-"
    _remove_leavings(destination.parent, prefix)
    descriptor, folder = _locked_folder(destination.parent, prefix)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def _locked_folder(parent: Path, prefix: str) -> tuple[int, Path]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        folder.chmod(0o755)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if folder.exists():  # another pull may have taken it for a killed one's before it was locked
            return descriptor, folder
        os.close(descriptor)


def _remove_leavings(parent: Path, prefix: str) -> None:
    for folder in parent.glob(f"{glob.escape(prefix)}*"):
        with suppress(OSError):
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
            finally:
                os.close(descriptor)
