"""Which modelcars an engine gets, where they are for it, and which adapters it loads from them. Pure.

KServe puts one modelcar beside an engine; the others of an InferenceService, and all of a Deployment, are image volumes. Those of one
base share its layers on the node, so a second one costs the adapter alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from serving.manifests.model import Adapter, Desired, Member

KSERVE_MOUNT = "/mnt/models"  # KServe links the image's folder models/ there
IMAGE_MOUNT = "/mnt/modelcar"  # an image volume holds the whole image


@dataclass(frozen=True)
class Loaded:
    """`images`: the first holds the base. `adapters`: (the engine's name, folder), by name."""

    images: tuple[str, ...]
    base: str
    adapters: tuple[tuple[str, str], ...]


def loaded(desired: Desired, member: Member) -> Loaded:
    """The same for the same set of adapters, whichever has the traffic: moving traffic restarts nothing."""
    held = _held(desired, member)
    images = tuple(dict.fromkeys(car for _, _, car in reversed(held))) or (member.modelcar,)
    return Loaded(
        images=images,
        base=model_folder(desired, 0),
        adapters=tuple((name, f"{model_folder(desired, images.index(car))}/{path}") for name, path, car in held),
    )


def image_volumes(desired: Desired, member: Member) -> tuple[tuple[str, str], ...]:
    """(mount path, image) of each modelcar that KServe does not put beside the engine."""
    every = tuple((mount_path(index), image) for index, image in enumerate(loaded(desired, member).images))
    return every if desired.form == "deployment" else every[1:]


def mount_path(index: int) -> str:
    """Of an image volume."""
    return IMAGE_MOUNT if index == 0 else f"{IMAGE_MOUNT}-{index}"


def model_folder(desired: Desired, index: int) -> str:
    """Where models/ of an image is for the engine."""
    return KSERVE_MOUNT if index == 0 and desired.form != "deployment" else f"{mount_path(index)}/models"


def sources(desired: Desired, member: Member) -> tuple[str, ...]:
    """As the fit stamp names them: what the pod's own fields say."""
    mounted = tuple(image for _, image in image_volumes(desired, member))
    first = (f"oci://{loaded(desired, member).images[0]}",) if desired.form == "inferenceservice" else ()
    return (*first, *mounted)


def signatures(desired: Desired, member: Member) -> tuple[tuple[str, str], ...]:
    """(image, digest of the payload that was signed) of each modelcar of the engine that is signed."""
    known = {each.modelcar: each.signature for each in desired.idle_adapters}
    known |= {each.modelcar: each.signature for each in desired.members}
    return tuple((image, known[image]) for image in loaded(desired, member).images if known.get(image))


def _held(desired: Desired, member: Member) -> list[tuple[str, str, str]]:
    """(name, path, modelcar) of each adapter, by name."""
    if desired.strategy != "adapter":
        own = member.adapter
        return [(desired.model, own.path, member.modelcar)] if own else []
    found = [(each.adapter, each.modelcar) for each in desired.members if each.adapter]
    found += [(idle, idle.modelcar or member.modelcar) for idle in desired.idle_adapters]
    return sorted(_named(adapter, car) for adapter, car in found)


def _named(adapter: Adapter, car: str) -> tuple[str, str, str]:
    return adapter.name, adapter.path, adapter.modelcar or car
