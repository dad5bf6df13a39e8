"""A modelcar (OCI image) as a FileStore: config.json and headers out of its layers' tars, without unpacking one.

The manifest is verified by its digest. A layer is not read whole, so its bytes are not verified here: the node that pulls
the image does that, and serving.modelcar.verify_layout. Compressed layers cannot be read in ranges.
"""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Protocol, cast

from serving.fit.model_reader import ModelUnreadable

ROOT = "models/"
MAX_READ_BYTES = 1 << 20  # tarfile reads an extended header whole, whatever size it claims
MAX_MEMBERS = 100_000
READ_AHEAD_BYTES = 16_384


@dataclass(frozen=True)
class Blob:
    digest: str
    size: int
    media_type: str


class BlobRanges(Protocol):
    """One image: its layers, and ranges of them. Raises ModelUnreadable."""

    name: str  # the reference with its digest

    def layers(self) -> tuple[Blob, ...]: ...

    def read(self, blob: Blob, start: int, size: int) -> bytes: ...


@dataclass(frozen=True)
class _Member:
    layer: Blob
    start: int
    size: int


class ImageStore:
    parallel = 4

    def __init__(self, image: BlobRanges, base_model: str | None = None) -> None:
        """`base_model` is the id that adapters name, where the image says it. Raises ModelUnreadable."""
        self.name = self.origin = image.name
        self.names: tuple[str, ...] = (base_model,) if base_model else ()
        self._image = image
        self._members: dict[str, _Member] = {}
        for layer in image.layers():  # a later layer's file hides an earlier one's of the same name
            self._members.update(_members(image, layer))

    def sizes(self) -> dict[str, int]:
        return {name: member.size for name, member in self._members.items()}

    def read(self, file: str, start: int, size: int) -> bytes:
        member = self._members[file]
        return self._image.read(member.layer, member.start + start, min(size, member.size - start))


def _members(image: BlobRanges, layer: Blob) -> Iterator[tuple[str, _Member]]:
    """Regular files directly below models/."""
    if not layer.media_type.endswith("tar"):
        raise ModelUnreadable(
            f"A layer of {image.name} is {layer.media_type[-60:]}; required: a plain tar, because weights are not "
            "downloaded to read a header. Build it as a modelcar of Liftlock, or name the model's folder or id."
        )
    try:
        with tarfile.open(fileobj=cast(BinaryIO, _Ranged(image, layer)), mode="r:") as tar:
            for count, info in enumerate(tar):
                if count >= MAX_MEMBERS:
                    raise tarfile.TarError(f"more than {MAX_MEMBERS} entries")
                name = info.name.removeprefix("./").removeprefix(ROOT)
                if info.isreg() and not info.issparse() and "/" not in name and name != info.name:
                    if info.offset_data + info.size > layer.size:
                        raise tarfile.TarError(f"{name[:80]!r} ends behind the layer")
                    yield name, _Member(layer, info.offset_data, info.size)
    except (tarfile.TarError, ValueError, OverflowError) as error:
        raise ModelUnreadable(
            f"Layer {layer.digest} of {image.name} is no readable tar ({str(error)[:100]}). Build the image again."
        ) from error


class _Ranged:
    """The part of a file object that tarfile uses, over ranges of a blob."""

    def __init__(self, image: BlobRanges, layer: Blob) -> None:
        self._image, self._layer = image, layer
        self._position = self._ahead_start = 0
        self._ahead = b""

    def tell(self) -> int:
        return self._position

    def seek(self, position: int) -> int:
        if position < 0:
            raise ValueError(f"a position of {position} bytes")
        self._position = position
        return position

    def read(self, size: int) -> bytes:
        if not 0 <= size <= MAX_READ_BYTES:
            raise ValueError(f"a tar header of {size} bytes")
        start, stop = self._position, min(self._position + size, self._layer.size)
        if stop <= start:
            return b""
        offset = start - self._ahead_start
        if not 0 <= offset <= len(self._ahead) - (stop - start):
            wanted = min(max(stop - start, READ_AHEAD_BYTES), self._layer.size - start)
            self._ahead, self._ahead_start, offset = self._image.read(self._layer, start, wanted), start, 0
        self._position = stop
        return self._ahead[offset : offset + stop - start]
