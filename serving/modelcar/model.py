"""The values that modelcar functions hand back. All sizes are in bytes, all digests read `sha256:<64 hex digits>`."""

from dataclasses import dataclass


@dataclass(frozen=True)
class LayerRef:
    """A blob as a manifest names it; `title` is empty for the config."""

    digest: str
    size: int
    title: str


@dataclass(frozen=True)
class Modelcar:
    """A built image.

    `reference` is `name@digest`, `bytes_written` what this build added to the layout, `size` the sum of all blobs.
    `signature` is the digest of the signed payload; empty while it is unsigned.
    """

    reference: str
    digest: str
    layers: tuple[LayerRef, ...]
    bytes_written: int
    size: int
    signature: str = ""


@dataclass(frozen=True)
class PushResult:
    """What a push moved. `bytes_sent` counts blobs; the manifest is not counted: it is sent every time."""

    digest: str
    bytes_sent: int
    blobs_sent: int
    blobs_present: int
    blobs_mounted: int
