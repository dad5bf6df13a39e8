"""build_and_push: base and adapter become a Modelcar in the layout folder, and in a registry where one is set; alias staging."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import mlflow

from serving.modelcar import (
    Access,
    DigestMismatch,
    LayoutInvalid,
    Reference,
    copy_image,
    model_layers,
    open_store,
    parse_reference,
    verify_layout,
    write_layout,
)
from serving.modelcar.content import FileDigest, hash_sources
from serving.modelcar.keys import KeyInvalid
from serving.modelcar.licence import check_licence, licence_of, model_card
from serving.modelcar.sbom import LICENCES
from serving.modelcar.signed import VerificationFailed
from serving.modelcar.verify import verify
from tasks.artifacts import Adapter, EvalPair, FitReport, GateDecision, Modelcar, ModelVersion
from tasks.digests import digest_of
from tasks.ledger import alias_version, move_alias
from tasks.preflight import fit_digest
from tasks.progress import Progress
from tasks.promotion.evidence import keep_document
from tasks.register import evidence_of
from tasks.run import current_run
from tasks.settings import get_settings
from tasks.shell import shell_of
from tasks.signing import Predicates, predicates_of, sign_modelcar, signing_key, verification_key
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
    """The digest depends on the model's bytes alone, so evidence stands in attestations, MLflow's tags and the ledger.

    Raises ModelRefused, LicenceNotAllowed, ShellMissing, KeyInvalid, RegistryFailed, AliasMoved.
    """
    settings = get_settings()
    repository = f"{settings.registry_repository}/{spec.name}"
    layers = model_layers(adapter.base, adapter.path, spec.name, shell_of(spec, settings))
    licence = licence_of(model_card(layers))
    check_licence(licence, spec.modelcar.licences)
    annotations = {
        "dev.liftlock.base-model": adapter.base_model,
        "dev.liftlock.base-sha256": adapter.base_sha256,
        "dev.liftlock.adapter-sha256": adapter.sha256,
        **({LICENCES: licence} if licence else {}),
    }
    built = write_layout(layout_folder(), layers, annotations, f"{spec.name}-{version.version}", name=repository)
    pushed = registry_reference(spec.name, version.version, None)
    if pushed is not None:
        _push(built, pushed)
    predicates = predicates_of(version, adapter, pair, decision, fit, spec)
    modelcar = _sign(built, pushed, predicates, hash_sources(layers), adapter.dataset_revision)
    client = mlflow.MlflowClient()
    evidence = {
        **evidence_of(adapter, pair, decision),
        "fit_report_sha256": fit_digest(fit),
        "modelcar": modelcar.reference,
    }
    key = digest_of(evidence_of(adapter, pair, decision))
    for name, document in {"fit.json": asdict(fit), "modelcar.json": asdict(modelcar)}.items():
        keep_document(client, version.run_id, key, name, document)
    tags = {
        "modelcar": modelcar.reference,
        "engine_model": engine_model_of(spec.name, modelcar),
        "fit_report_sha256": evidence["fit_report_sha256"],
        "fit": f"{fit.verdict} on {fit.gpu}",
        "signature": modelcar.signature,
        "licence": licence or "not named",
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


def registry_reference(name: str, version: str, digest: str | None) -> Reference | None:
    """Where a version's modelcar is pushed besides the layout folder; None where no registry is set."""
    settings = get_settings()
    if not settings.registry:
        return None
    place = f"{settings.registry.rstrip('/')}/{settings.registry_repository}/{name}:v{version}"
    return parse_reference(f"{place}@{digest}" if digest else place)


def _sign(
    built: Modelcar, pushed: Reference | None, predicates: Predicates, files: tuple[FileDigest, ...], dataset: str
) -> Modelcar:
    """In the layout folder and in the registry, by the same key under the same name, so the payload is one."""
    key, layout = signing_key(get_settings()), parse_reference(f"oci:{layout_folder()}")
    identity = pushed.name if pushed else built.reference.partition("@")[0]
    payload = ""
    for place in (layout, *((pushed,) if pushed else ())):
        with open_store(place, registry_access()) as store:
            payload = sign_modelcar(store, built.digest, key, identity, predicates, files, dataset).payload_digest
    return replace(built, signature=payload)


def registry_access() -> Access:
    """Who we are to that registry."""
    return Access(auth_file=get_settings().registry_auth_file)


def _push(modelcar: Modelcar, target: Reference) -> None:
    with (
        open_store(parse_reference(f"oci:{layout_folder()}")) as source,
        open_store(target, registry_access()) as store,
        Progress(current_run().console, "push") as progress,
    ):
        copy_image(
            source,
            modelcar.digest,
            store,
            target.tag,
            progress=lambda done, total: progress.update(done, total, "bytes"),
        )


def _key(
    version: ModelVersion, adapter: Adapter, pair: EvalPair, decision: GateDecision, fit: FitReport, spec: Release
) -> tuple[Any, ...]:
    packed = (spec.modelcar.model_dump(), spec.delivery.target)
    return ("4", version.sha256, adapter.sha256, adapter.base_sha256, fit_digest(fit), get_settings().registry, packed)


def _intact(modelcar: Modelcar) -> bool:
    """Whole, and signed as this build signed it, by the key that is trusted now."""
    reference = parse_reference(f"oci:{layout_folder()}@{modelcar.digest}")
    try:
        verify_layout(layout_folder(), modelcar.digest)
        with open_store(reference) as store:
            verify(reference, verification_key(get_settings()), store, payload=modelcar.signature, layers=False)
    except (DigestMismatch, LayoutInvalid, VerificationFailed, KeyInvalid, OSError):
        return False
    return True


def _artifact(modelcar: Modelcar) -> str:
    rows = "\n".join(
        f"| {layer.title or 'config'} | {layer.size:,} | `{layer.digest[:23]}` |" for layer in modelcar.layers
    )
    return f"`{modelcar.reference}`, signed as `{modelcar.signature}`\n\n| layer | bytes | digest |\n|---|---|---|\n{rows}\n"


build_and_push = stage(
    "build_and_push",
    key=_key,
    digest=lambda modelcar: modelcar.digest,
    note=lambda modelcar: (
        f"{modelcar.digest[:19]}…, {modelcar.size / 1e6:.0f} MB, {modelcar.bytes_written / 1e6:.0f} MB new, signed, @staging"
    ),
    artifact=_artifact,
    intact=_intact,
)(build)
