"""Brings an image to a registry or a layout folder: several blobs at a time, then its manifest, then its tag.

A layer is hashed, asked for, mounted from another repository where that has it, and only else sent, straight from the
model's files. The manifest goes when every blob is there, so no tag ever names an incomplete image.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, cast

from serving.modelcar.digests import DigestCache
from serving.modelcar.image import manifest, sha256_digest
from serving.modelcar.layer import Layer
from serving.modelcar.layout import blob_refs, checked_manifest
from serving.modelcar.model import LayerRef, PushResult
from serving.modelcar.parallel import Check, run_all
from serving.modelcar.reference import check_tag
from serving.modelcar.store import ImageStore

STREAMS = 4
Progress = Callable[[int, int], None]
_Moved = Literal["sent", "present", "mounted"]


@dataclass(frozen=True)
class _Blob:
    size: int
    digest: Callable[[], str]
    blocks: Callable[[], Iterator[bytes]]


def push_image(
    layers: Sequence[Layer],
    annotations: Mapping[str, str],
    target: ImageStore,
    tag: str | None,
    *,
    cache: DigestCache | None = None,
    mount_from: Sequence[str] = (),
    streams: int = STREAMS,
    progress: Progress | None = None,
) -> PushResult:
    """Sends what `target` lacks, streamed from the model's files; nothing is written on this machine.

    `mount_from` names repositories of the same registry that may have the layers, `streams` is how many blobs are on
    their way at a time. `progress` gets (bytes that are
    there, bytes of all layers); the first number falls back when a part is sent again.
    Raises ModelChanged, RegistryFailed, ReferenceInvalid.
    """
    check_tag(tag)
    known = cache or DigestCache(None)
    outgoing = [_Blob(layer.size, _digest_of(known, layer), layer.send) for layer in layers]
    moved = _send(outgoing, target, mount_from, streams, progress)
    known.save()
    config, document = manifest(layers, annotations)
    config_moved = _put_config(target, config)
    return _result(target.put_manifest(document, tag), [*outgoing, config_moved[0]], [*moved, config_moved[1]])


def copy_image(
    source: ImageStore,
    reference: str,
    target: ImageStore,
    tag: str | None,
    *,
    mount_from: Sequence[str] = (),
    streams: int = STREAMS,
    progress: Progress | None = None,
) -> PushResult:
    """Copies the image that `reference` (a digest or tag) names in `source`, byte for byte, so that its digest stays.

    Raises ImageMissing, DigestMismatch (the source is damaged), LayoutInvalid, RegistryFailed, ReferenceInvalid.
    """
    check_tag(tag)
    document = source.get_manifest(reference)
    refs = {ref.digest: ref for ref in blob_refs(checked_manifest(document.json(), document.digest, source.name))}
    outgoing = [_Blob(ref.size, _known(ref), _stream_of(source, ref)) for ref in refs.values()]
    moved = _send(outgoing, target, mount_from, streams, progress)
    return _result(target.put_manifest(document.data, tag), outgoing, moved)


def put_document(target: ImageStore, config: bytes, document: bytes, tag: str | None) -> str:
    """A further manifest over blobs that are there already, such as a ModelPack artifact. Returns its digest."""
    target.put_blob(config)
    return target.put_manifest(document, tag)


def _send(
    blobs: Sequence[_Blob], target: ImageStore, mount_from: Sequence[str], streams: int, progress: Progress | None
) -> list[_Moved]:
    """How each blob got there, in order."""
    report = Report(progress, sum(blob.size for blob in blobs))
    jobs = [partial(_bring, blob, target, mount_from, report.of(number)) for number, blob in enumerate(blobs)]
    return run_all(jobs, streams)


def _bring(
    blob: _Blob, target: ImageStore, mount_from: Sequence[str], report: Callable[[int], None], check: Check
) -> _Moved:
    digest = blob.digest()
    moved: _Moved = "sent"
    if target.has_blob(digest, blob.size):
        moved = "present"
    elif any(target.mount(digest, other) for other in mount_from):
        moved = "mounted"
    else:
        target.put_stream(digest, blob.size, lambda: _checked(blob.blocks(), check), report)
    report(blob.size)
    return moved


def _checked(blocks: Iterator[bytes], check: Check) -> Iterator[bytes]:
    for block in blocks:
        check()
        yield block


def _digest_of(cache: DigestCache, layer: Layer) -> Callable[[], str]:
    return lambda: cache.fill(layer)


def _known(ref: LayerRef) -> Callable[[], str]:
    return lambda: ref.digest


def _stream_of(source: ImageStore, ref: LayerRef) -> Callable[[], Iterator[bytes]]:
    def blocks() -> Iterator[bytes]:
        for block in source.blob_blocks(ref.digest, ref.size):
            yield cast(bytes, block)  # or a memoryview, which sockets and hashes take as bytes

    return blocks


def _put_config(target: ImageStore, config: bytes) -> tuple[_Blob, _Moved]:
    digest = sha256_digest(config)
    moved: _Moved = "present" if target.has_blob(digest, len(config)) else "sent"
    if moved == "sent":
        target.put_stream(digest, len(config), lambda: iter((config,)))
    return _Blob(len(config), lambda: digest, lambda: iter((config,))), moved


def _result(digest: str, blobs: Sequence[_Blob], moved: Sequence[_Moved]) -> PushResult:
    sent = sum(blob.size for blob, how in zip(blobs, moved, strict=True) if how == "sent")
    return PushResult(digest, sent, moved.count("sent"), moved.count("present"), moved.count("mounted"))


class Report:
    """Adds up what the threads report; `of(number)` is one of them."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress = progress
        self._total = total
        self._done: dict[int, int] = {}
        self._lock = threading.Lock()

    def of(self, number: int) -> Callable[[int], None]:
        def report(done: int) -> None:
            if self._progress is None:
                return
            with self._lock:
                self._done[number] = done
                self._progress(sum(self._done.values()), self._total)

        return report
