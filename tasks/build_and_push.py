"""build_and_push: base and adapter become a Modelcar in the layout folder, and in a registry where one is set; alias staging."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow

from serving.modelcar import (
    DigestMismatch,
    LayoutInvalid,
    copy_image,
    model_layers,
    open_store,
    parse_reference,
    verify_layout,
    write_layout,
)
from tasks.artifacts import Adapter, EvalPair, FitReport, GateDecision, Modelcar, ModelVersion
from tasks.ledger import alias_version, move_alias
from tasks.preflight import fit_digest
from tasks.progress import Progress
from tasks.register import evidence_of
from tasks.run import current_run
from tasks.settings import get_settings
from tasks.spec import Release
from tasks.stack.addresses import addresses
from tasks.stage import stage


def layout_folder() -> Path:
    return get_settings().state / "modelcars"


def engine_model_of(name: str, modelcar: Modelcar) -> str:
    """The name under which the engine serves this modelcar's adapter."""
    return f"{name}-{modelcar.digest.removeprefix('sha256:')[:12]}"


def build(
    version: ModelVersion, adapter: Adapter, pair: EvalPair, decision: GateDecision, fit: FitReport, spec: Release
) -> Modelcar:
    """The digest depends on the model's bytes alone, so evidence stands in MLflow's tags and the ledger, not in the image.

    Raises ModelRefused, RegistryFailed, AliasMoved.
    """
    settings = get_settings()
    repository = f"{settings.registry_repository}/{spec.name}"
    layers = model_layers(adapter.base, adapter.path, spec.name)
    annotations = {
        "dev.liftlock.base-model": adapter.base_model,
        "dev.liftlock.base-sha256": adapter.base_sha256,
        "dev.liftlock.adapter-sha256": adapter.sha256,
    }
    modelcar = write_layout(layout_folder(), layers, annotations, f"{spec.name}-{version.version}", name=repository)
    if settings.registry:
        _push(modelcar, settings.registry, repository, f"v{version.version}")
    client = mlflow.MlflowClient()
    evidence = {
        **evidence_of(adapter, pair, decision),
        "fit_report_sha256": fit_digest(fit),
        "modelcar": modelcar.reference,
    }
    tags = {
        "modelcar": modelcar.reference,
        "engine_model": engine_model_of(spec.name, modelcar),
        "fit_report_sha256": evidence["fit_report_sha256"],
        "fit": f"{fit.verdict} on {fit.gpu}",
    }
    for key, value in tags.items():
        client.set_model_version_tag(spec.name, version.version, f"liftlock.{key}", value)
    expected = alias_version(client, spec.name, "staging")
    move_alias(
        addresses(settings).dsn("liftlock"),
        spec.name,
        "staging",
        version.version,
        expected=expected,
        reason="the modelcar is built",
        evidence=evidence,
    )
    return modelcar


def _push(modelcar: Modelcar, registry: str, repository: str, tag: str) -> None:
    target = parse_reference(f"{registry.rstrip('/')}/{repository}:{tag}")
    with (
        open_store(parse_reference(f"oci:{layout_folder()}")) as source,
        open_store(target) as store,
        Progress(current_run().console, "push") as progress,
    ):
        copy_image(
            source,
            modelcar.digest,
            store,
            tag,
            progress=lambda done, total: progress.update(done, total, "bytes"),
        )


def _key(
    version: ModelVersion, adapter: Adapter, pair: EvalPair, decision: GateDecision, fit: FitReport, spec: Release
) -> tuple[Any, ...]:
    return ("1", version.sha256, adapter.sha256, adapter.base_sha256, fit_digest(fit), get_settings().registry)


def _intact(modelcar: Modelcar) -> bool:
    try:
        verify_layout(layout_folder(), modelcar.digest)
    except (DigestMismatch, LayoutInvalid, OSError):
        return False
    return True


def _artifact(modelcar: Modelcar) -> str:
    rows = "\n".join(
        f"| {layer.title or 'config'} | {layer.size:,} | `{layer.digest[:23]}` |" for layer in modelcar.layers
    )
    return f"`{modelcar.reference}`\n\n| layer | bytes | digest |\n|---|---|---|\n{rows}\n"


build_and_push = stage(
    "build_and_push",
    key=_key,
    digest=lambda modelcar: modelcar.digest,
    note=lambda modelcar: (
        f"{modelcar.digest[:19]}…, {modelcar.size / 1e6:.0f} MB, {modelcar.bytes_written / 1e6:.0f} MB new, @staging"
    ),
    artifact=_artifact,
    intact=_intact,
)(build)
