"""From a release.yaml and a registered version to what is rendered: the version's image, flags, evidence and cold start."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

import mlflow
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from pydantic import TypeAdapter, ValidationError

from serving.fit.manifest_check import GPU_OF_LABEL, LOAD_BYTES_PER_SECOND, START_SECONDS
from serving.fit.model_reader import read_model
from serving.fit.open_model import Places, open_model
from serving.manifests.model import (
    Adapter,
    Alias,
    Desired,
    DesiredInvalid,
    Fit,
    Member,
    Platform,
    Resources,
    Strategy,
    WarmUp,
)
from tasks.base_model import resolve_base
from tasks.build_and_push import layout_folder, registry_reference
from tasks.cluster_spec import ClusterSpec
from tasks.ledger import alias_version
from tasks.plain_yaml import YamlInvalid, read_plain
from tasks.promotion.evidence import ABSENT, Artifacts
from tasks.settings import ROOT, Settings, get_settings
from tasks.spec import Release

EVIDENCE = (
    "adapter_sha256", "base_sha256", "baseline_report_sha256", "dataset_revision", "decision_sha256", "eval_report_sha256",
    "fit_report_sha256", "signature",
)  # fmt: skip
# A node that pulls the engine's image for the first time is slower than any record; the probe only ends what hangs.
LEAST_STARTUP_SECONDS = 600
STARTUP_MARGIN = 2


class PlatformInvalid(Exception):
    """The platform's file cannot be used."""


class VersionNotDeliverable(Exception):
    """The version lacks what a cluster needs of it."""


@dataclass(frozen=True)
class Base:
    """The base model's digest in fit stamps, and the bytes of its weight files."""

    digest: str
    weight_bytes: int


def platform_of(settings: Settings) -> Platform:
    """Raises PlatformInvalid."""
    path = settings.platform
    try:
        return TypeAdapter(Platform).validate_python(read_plain(path.read_text(encoding="utf-8")).value)
    except (OSError, UnicodeDecodeError, YamlInvalid) as error:
        raise PlatformInvalid(f"{path} cannot be read: {error}; LIFTLOCK_PLATFORM names another file") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise PlatformInvalid(
            f"{path}: {where}: {first['msg']}; see deploy/serving/platform.yaml for its keys"
        ) from None


def base_of(spec: Release, settings: Settings) -> Base:
    """Raises BaseModelRefused, and what serving.fit raises for a model that it cannot read."""
    files = read_model(open_model(str(resolve_base(spec.base_model, settings)), Places()))
    return Base(files.digest, sum(files.file_bytes))


def member_of(client: mlflow.MlflowClient, version: ModelVersion, spec: Release, base: Base) -> Member:
    """What stands in the registry about a version that was built and pushed. Raises VersionNotDeliverable."""
    tags = {str(name): str(value) for name, value in version.tags.items()}
    digest = tags.get("liftlock.modelcar", "").rpartition("@")[2]
    pushed = registry_reference(version.name, version.version, digest) if digest else None
    if pushed is None:
        lacking = "no modelcar" if not digest else "a modelcar in the layout folder alone"
        raise VersionNotDeliverable(
            f"{version.name} v{version.version} has {lacking}; a cluster pulls it from a registry: set LIFTLOCK_REGISTRY "
            "and release it again"
        )
    with tempfile.TemporaryDirectory() as folder:
        found = Artifacts(client, version, Path(folder), layout_folder())
        fit, cold = _document(found, "fit.json"), _cold_start(found)
    return Member(
        version=str(version.version),
        modelcar=f"{pushed.name}@{digest}",
        flags=tuple(fit["flags"]),
        adapter=Adapter(tags.get("liftlock.engine_model", f"{spec.name}-v{version.version}"), f"adapters/{spec.name}"),
        replicas=spec.delivery.cluster.replicas,
        resources=resources_of(spec.delivery.cluster),
        startup_seconds=spec.delivery.cluster.startup_seconds or startup_budget(base.weight_bytes, cold),
        fit=Fit(base.digest, fit["gpu"], fit["verdict"]),
        evidence=tuple((name, tags[f"liftlock.{name}"]) for name in EVIDENCE if tags.get(f"liftlock.{name}")),
    )


def resources_of(cluster: ClusterSpec) -> Resources:
    return Resources(cluster.cpu, cluster.cpu_limit, cluster.memory, cluster.memory_limit, cluster.shm)


def startup_budget(weight_bytes: int, cold_start_seconds: float | None) -> int:
    """Seconds for the startup probe: twice a recorded cold start, or twice what loading takes on a slow disk, in tens."""
    expected = max(START_SECONDS + weight_bytes / LOAD_BYTES_PER_SECOND, cold_start_seconds or 0.0)
    return max(LEAST_STARTUP_SECONDS, math.ceil(STARTUP_MARGIN * expected / 10) * 10)


def desired_of(
    spec: Release,
    platform: Platform,
    stable: Member | None,
    candidate: Member | None = None,
    *,
    weight: int = 0,
    strategy: Strategy | None = None,
    surge: bool = False,
    idle_adapters: tuple[Adapter, ...] = (),
    others: Sequence[Mapping[str, Any]] = (),
) -> Desired:
    """`strategy` for a spec that says auto; `others` are the entries of LiteLLM's model_list. Raises DesiredInvalid."""
    cluster, delivery = spec.delivery.cluster, spec.delivery
    named = delivery.strategy
    asked: Strategy = strategy or ("pool" if named == "auto" or named == "mirror" else named)
    script = (ROOT / "deploy" / "warmup" / "ready.sh").read_text()
    return Desired(
        model=spec.name,
        namespace=cluster.namespace,
        strategy=asked,
        form=cluster.form,
        platform=platform,
        warmup=WarmUp(script, delivery.warmup_requests, delivery.warmup_first_token_seconds),
        stable=stable,
        candidate=candidate,
        weight=weight,
        request_seconds=cluster.request_seconds,
        surge=surge,
        idle_adapters=idle_adapters,
        gpu=gpu_label(spec.serving.gpu),
        alias=_alias(spec, others),
    )


def desired_of_aliases(
    spec: Release, *, weight: int = 0, strategy: str | None = None, others: Sequence[Mapping[str, Any]] = ()
) -> Desired:
    """The version at @champion as stable and the one at @staging as its candidate; each alone where the other is missing.

    Raises VersionNotDeliverable, DesiredInvalid, PlatformInvalid.
    """
    settings, client = get_settings(), mlflow.MlflowClient()
    platform, base = platform_of(settings), base_of(spec, settings)
    champion, staging = alias_version(client, spec.name, "champion"), alias_version(client, spec.name, "staging")
    found = [
        member_of(client, client.get_model_version(spec.name, version), spec, base)
        for version in dict.fromkeys(each for each in (champion, staging) if each)
    ]
    if not found:
        raise VersionNotDeliverable(f"{spec.name} has no version at @champion or @staging; release it first")
    stable, candidate = found if len(found) == 2 else (found[0], None)
    return desired_of(spec, platform, stable, candidate, weight=weight, strategy=_strategy(strategy), others=others)


def _strategy(named: str | None) -> Strategy | None:
    """Raises DesiredInvalid."""
    if named is None or named in get_args(Strategy):
        return cast(Strategy | None, named)
    raise DesiredInvalid(f"strategy is {named[:40]!r}; required: {', '.join(get_args(Strategy))}")


def gpu_label(gpu: str) -> str:
    """GKE's value of the accelerator label for a GPU of the catalogue."""
    return next((label for label, name in GPU_OF_LABEL.items() if name == gpu and label.startswith("nvidia-")), gpu)


def _alias(spec: Release, others: Sequence[Mapping[str, Any]]) -> Alias | None:
    asked = spec.delivery.cluster.alias
    if asked is None:
        return None
    name = asked.name or spec.name
    return Alias(name, asked.input_cost_per_token, asked.output_cost_per_token, asked.info, tuple(others))


def _document(found: Artifacts, name: str) -> Any:
    try:
        return found.values(name)
    except ABSENT as error:
        raise VersionNotDeliverable(
            f"{found.version.name} v{found.version.version} has no {name} among its evidence ({type(error).__name__}); "
            "release it again"
        ) from None


def _cold_start(found: Artifacts) -> float | None:
    """Seconds that the version's own canary took from the pull to the warm engine; None before its first."""
    try:
        return sum(float(seconds) for _, seconds in json.loads(found.document("rollout.json"))["cold_start"])
    except (MlflowException, OSError, KeyError, ValueError):
        return None
