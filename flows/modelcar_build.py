"""The steps of `liftlock modelcar build`: where the shell is, what the digest is, and bringing it all to its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console

from flows.byte_bar import ByteBar

if TYPE_CHECKING:
    from serving.modelcar import Access, DigestCache, Layer, Reference

errors = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)


def check_card(model: Path, layers: Sequence[Layer], allowed: Sequence[str], annotations: dict[str, str]) -> str | None:
    """The licence that the model card names; it goes into `annotations` too. Raises LicenceNotAllowed."""
    from serving.modelcar.licence import check_licence, licence_of, model_card

    card = model_card(layers)
    licence = licence_of(card)
    check_licence(licence, allowed)
    if licence:
        annotations.setdefault("org.opencontainers.image.licenses", licence)
    if card is None:
        errors.print(f"{model} has no model card (README.md); the image will have none")
    return licence


def bring_or_digest(
    layers: Sequence[Layer],
    annotations: dict[str, str],
    target: Reference | None,
    access: Access,
    mount_from: Sequence[str],
    streams: int,
) -> dict[str, Any]:
    """Brings the image to `target` and says what was sent; without a target only its digest is computed."""
    from serving.modelcar import open_store, push_image

    cache = digest_cache()
    if target is None:
        return _digest_only(layers, annotations, cache)
    with open_store(target, access) as store, ByteBar(errors, "push") as bar:
        result = push_image(
            layers,
            annotations,
            store,
            target.tag,
            cache=cache,
            mount_from=mount_from,
            streams=streams,
            progress=bar.update,
        )
    return {"reference": target.pinned(result.digest), **asdict(result)}


def told(layers: Sequence[Layer]) -> list[dict[str, Any]]:
    return [{"title": layer.title, "digest": layer.digest, "size": layer.size} for layer in layers]


def _digest_only(layers: Sequence[Layer], annotations: dict[str, str], cache: DigestCache) -> dict[str, Any]:
    from serving.modelcar import manifest
    from serving.modelcar.image import sha256_digest

    for layer in layers:
        cache.fill(layer)
    cache.save()
    return {"digest": sha256_digest(manifest(layers, annotations)[1])}


def put_modelpack(
    layers: Sequence[Layer], name: str, annotations: dict[str, str], target: Reference | None, access: Access
) -> str:
    from serving.modelcar import open_store
    from serving.modelcar.image import sha256_digest
    from serving.modelcar.modelpack import modelpack
    from serving.modelcar.push import put_document

    config, document = modelpack(layers, name, annotations)
    if target is None:
        return sha256_digest(document)
    with open_store(target, access) as store:
        return put_document(store, config, document, f"{target.tag}-modelpack" if target.tag else None)


def find_shell(given: Path | None) -> Path:
    """The file that was named, else the first pinned busybox of the toolchain folder or the system."""
    from serving.modelcar.shell import ShellMissing
    from tasks.settings import get_settings
    from tasks.shell import present_shell

    found = given or present_shell(get_settings())
    if found is not None:
        return found
    raise ShellMissing(
        "no busybox with the pinned bytes is on this machine; run `liftlock modelcar shell`, or give --no-shell for an "
        "image that image volumes and oci+fetch:// can serve and KServe's oci:// cannot"
    )


def toolchain_shell() -> Path:
    from tasks import shell
    from tasks.settings import get_settings

    return shell.toolchain_shell(get_settings())


def digest_cache() -> DigestCache:
    from serving.modelcar import DigestCache
    from tasks.settings import get_settings

    return DigestCache(get_settings().state / "modelcar-digests.json")


def annotations_of(pairs: list[str]) -> dict[str, str]:
    for pair in pairs:
        if "=" not in pair or pair.startswith("="):
            raise typer.BadParameter(f"{pair!r} is no annotation; write KEY=VALUE")
    return dict(pair.split("=", 1) for pair in pairs)
