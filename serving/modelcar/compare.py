"""What differs between two images, layer by layer, and file by file where the layers are small.

The answer to "what would a machine that has the first have to fetch for the second", before it is delivered.
"""

from dataclasses import dataclass

from serving.modelcar.describe import Description, FileInfo, describe, layer_files
from serving.modelcar.model import LayerRef
from serving.modelcar.store import ImageStore


@dataclass(frozen=True)
class LayerChange:
    """A layer title with what each image has under it; None where one has none."""

    title: str
    before: LayerRef | None
    after: LayerRef | None


@dataclass(frozen=True)
class FileChange:
    """A file in a small layer that changed; None where one image has none."""

    name: str
    before: FileInfo | None
    after: FileInfo | None


@dataclass(frozen=True)
class Comparison:
    """`bytes_to_fetch` counts the layers of the second image that the first lacks."""

    before: str
    after: str
    same: bool
    layers_shared: int
    bytes_to_fetch: int
    layers: tuple[LayerChange, ...]
    files: tuple[FileChange, ...]
    annotations: tuple[tuple[str, str | None, str | None], ...]


def compare(store: ImageStore, reference: str, other_store: ImageStore, other: str) -> Comparison:
    """Raises what `describe` raises."""
    before, after = describe(store, reference), describe(other_store, other)
    had = {layer.digest for layer in before.layers}
    changes = _layer_changes(before, after)
    return Comparison(
        before=before.reference,
        after=after.reference,
        same=before.digest == after.digest,
        layers_shared=sum(layer.digest in had for layer in after.layers),
        bytes_to_fetch=sum(layer.size for layer in after.layers if layer.digest not in had),
        layers=changes,
        files=tuple(change for layer in changes for change in _file_changes(store, other_store, layer)),
        annotations=_annotation_changes(dict(before.annotations), dict(after.annotations)),
    )


def _layer_changes(before: Description, after: Description) -> tuple[LayerChange, ...]:
    old, new = ({layer.title: layer for layer in side.layers} for side in (before, after))
    changes = (LayerChange(title, old.get(title), new.get(title)) for title in sorted({*old, *new}))
    return tuple(change for change in changes if _digest(change.before) != _digest(change.after))


def _digest(layer: LayerRef | None) -> str | None:
    return layer.digest if layer else None


def _file_changes(store: ImageStore, other: ImageStore, change: LayerChange) -> tuple[FileChange, ...]:
    if change.before is None or change.after is None:
        return ()
    old, new = layer_files(store, change.before), layer_files(other, change.after)
    if old is None or new is None:
        return ()
    mine, theirs = ({file.name: file for file in files} for files in (old, new))
    names = sorted({*mine, *theirs})
    return tuple(
        FileChange(name, mine.get(name), theirs.get(name)) for name in names if mine.get(name) != theirs.get(name)
    )


def _annotation_changes(
    before: dict[str, str], after: dict[str, str]
) -> tuple[tuple[str, str | None, str | None], ...]:
    keys = sorted({*before, *after})
    return tuple((key, before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key))
