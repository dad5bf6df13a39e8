"""From what a person writes as MODEL to a store that reads it. The order: what exists here, an image, an id of the hub.

liftlock fit ./my-model · Qwen/Qwen3-4B@main · oci:./modelcars:router-3 · ghcr.io/me/router@sha256:… · config.json
"""

from dataclasses import dataclass, field
from pathlib import Path

from serving.fit.folder_store import FolderStore
from serving.fit.hub import MODEL_ID, HubAccess, HubStore
from serving.fit.image_ranges import ImageRanges
from serving.fit.image_store import ImageStore
from serving.fit.model_reader import FileStore, ModelUnreadable
from serving.modelcar.document import Access

IMAGE_PREFIXES = ("oci:", "oci+fetch:")


@dataclass(frozen=True)
class Places:
    """How the hub and registries are reached; nothing is read from the environment here."""

    hub: HubAccess = field(default_factory=HubAccess)
    registry: Access = field(default_factory=Access)
    modelcars: Path | None = None  # the layout folder of builds on this machine, known by NAME@DIGEST


def open_model(model: str, places: Places) -> FileStore:
    """Raises ModelUnreadable."""
    if not model.startswith(IMAGE_PREFIXES) and _exists(model):
        return FolderStore(Path(model))
    if model.startswith(IMAGE_PREFIXES) or "@sha256:" in model:
        image = ImageRanges(_local_modelcar(model, places.modelcars) or model, places.registry)
        return ImageStore(image, image.base_model)
    name = model.removeprefix("hf://")
    if MODEL_ID.fullmatch(name):
        return HubStore(name, places.hub)
    raise ModelUnreadable(
        f"{model[:100]!r} is no folder that exists, no image reference and no Hugging Face id; required: one of them. "
        "Check the path."
    )


def _local_modelcar(model: str, layout: Path | None) -> str | None:
    """The layout's own reference, where a build of this machine has that digest."""
    name, _, digest = model.rpartition("@sha256:")
    if layout is None or name.startswith(IMAGE_PREFIXES) or not _exists(str(layout / "blobs" / "sha256" / digest)):
        return None
    return f"oci:{layout}@sha256:{digest}"


def _exists(path: str) -> bool:
    """False too for what can be no path: too long, or with a null character."""
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False
