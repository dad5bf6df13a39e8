"""What is rendered: a model with one or two members, and the platform it runs on. Values only; `render.py` makes manifests of them.

Quantities are Kubernetes' own (12Gi, 2, 500m). Every image is named by digest. Times are seconds, weights percent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from serving.fit.quantity import parse_quantity
from serving.fit.report import Verdict

Strategy = Literal["adapter", "pool", "swap"]
Form = Literal["inferenceservice", "deployment", "llminferenceservice"]

PINNED = re.compile(
    r"[a-z0-9][a-z0-9.-]*(:[0-9]{1,5})?(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)+(:[\w.-]{1,128})?@sha256:[0-9a-f]{64}"
)
NAME = re.compile(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?")
VERSION = re.compile(r"[a-z0-9]([a-z0-9-]{0,13}[a-z0-9])?")
NAMESPACE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
# InferenceServices get a host name of NAME-NAMESPACE in one DNS label (KServe's domainTemplate).
LONGEST_LABEL = 63


class DesiredInvalid(ValueError):
    """No manifests can be rendered from this."""


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter in a modelcar. `name` is the engine's; `path` is below `models/` of the image.

    `modelcar` is empty for the image of the member that it is of, and so is `signature`, the digest of its signed payload.
    """

    name: str
    path: str
    modelcar: str = ""
    signature: str = ""


@dataclass(frozen=True)
class Resources:
    """Of the engine's container. The defaults leave a g2-standard-4 (3.92 CPU, 13 GiB for pods) room for what runs on every node."""

    cpu: str = "2"
    cpu_limit: str = "4"  # KServe writes a limit of 1 where there is none
    memory: str = "8Gi"
    memory_limit: str = "12Gi"
    shm: str = "2Gi"  # counts against the memory limit
    gpus: int = 1


@dataclass(frozen=True)
class Fit:
    """What the stamp says: `model_digest` over config, index and headers (ModelFiles.digest)."""

    model_digest: str
    gpu: str
    verdict: Verdict


@dataclass(frozen=True)
class Member:
    """One version of the model. `flags` are the fit report's; model, names and port are added by the renderer.

    `startup_seconds` is the budget of the startup probe. `evidence` are annotations: name → digest or reference.
    """

    version: str
    modelcar: str
    flags: tuple[str, ...]
    adapter: Adapter | None = None
    replicas: int = 1
    resources: Resources = field(default_factory=Resources)
    startup_seconds: int = 900
    fit: Fit | None = None
    evidence: tuple[tuple[str, str], ...] = ()

    @property
    def signature(self) -> str:
        """Digest of the payload that was signed for the modelcar; empty for one that is not signed."""
        return dict(self.evidence).get("signature", "")


@dataclass(frozen=True)
class WarmUp:
    """`script` is deploy/warmup/ready.sh; the prompts are JSON lists of messages."""

    script: str
    requests: int = 4
    first_token_seconds: float = 10
    short_prompt: str = '[{"role":"user","content":"Say yes."}]'
    long_prompt: str = ""  # left out: the short one, many times

    @property
    def prompts(self) -> dict[str, str]:
        """Files of WARM_PROMPTS."""
        long = self.long_prompt or '[{"role":"user","content":"' + "Say yes. " * 64 + '"}]'
        return {"short.json": self.short_prompt, "long.json": long}


@dataclass(frozen=True)
class Platform:
    """Names of the cluster that the model is delivered to."""

    engine_image: str
    picker_image: str
    gateway: str = "inference-gateway"
    gateway_namespace: str = "inference"
    trusted_namespaces: tuple[str, ...] = ("agentgateway-system", "inference", "litellm", "monitoring")
    evaluation_namespace: str = "mlops"
    api_key_secret: str = "vllm-api-key"  # noqa: S105 - the name of a Secret
    api_key: str = "api-key"
    gpu_label: str = "cloud.google.com/gke-accelerator"


@dataclass(frozen=True)
class Alias:
    """The entry of LiteLLM's model_list. Helm replaces lists, so `others` are the entries that its values have already.

    Costs are dollars a token; without them budgets never bind. `info` goes into model_info (owner, tier, limits, tenants).
    """

    name: str
    input_cost_per_token: float
    output_cost_per_token: float
    info: Mapping[str, Any] = field(default_factory=dict)
    others: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class Desired:
    """A model as it shall be on the cluster: `weight` percent of its requests go to the candidate.

    adapter: one engine holds both members' adapters. pool: an engine and an InferencePool for each member. swap: one member's
    engine runs at a time; `weight` is 0 or 100. `surge`: a GPU is free for a second engine while one replaces the other, so the
    engine is updated without a gap. `idle_adapters`: further adapters that the engine holds (strategy adapter): a version that
    was undone or replaced stays until the next release, so nothing restarts. Raises DesiredInvalid.
    """

    model: str
    namespace: str
    strategy: Strategy
    form: Form
    platform: Platform
    warmup: WarmUp
    stable: Member | None
    candidate: Member | None = None
    weight: int = 0
    request_seconds: int = 240
    surge: bool = False
    idle_adapters: tuple[Adapter, ...] = ()
    gpu: str = "nvidia-l4"
    alias: Alias | None = None

    def __post_init__(self) -> None:
        _names(self)
        _members(self)
        for member in self.members:
            _member(self, member)

    @property
    def members(self) -> tuple[Member, ...]:
        """stable first."""
        return tuple(member for member in (self.stable, self.candidate) if member is not None)

    def name_of(self, member: Member) -> str:
        """Of the member's workload and pool. It holds the version, so that a promotion renames and restarts nothing."""
        return self.model if self.strategy == "adapter" else f"{self.model}-v{member.version}"

    def share_of(self, member: Member) -> int:
        """Percent of the requests."""
        if self.candidate is None or self.stable is None:
            return 100
        return self.weight if member is self.candidate else 100 - self.weight


def invalid(what: str, observed: object, required: str) -> DesiredInvalid:
    return DesiredInvalid(f"{what} is {str(observed)[:80]!r}; required: {required}")


def _names(desired: Desired) -> None:
    if not NAME.fullmatch(desired.model):
        raise invalid("model", desired.model, "lower-case letters, digits and dashes, at most 40")
    if not NAMESPACE.fullmatch(desired.namespace):
        raise invalid("namespace", desired.namespace, "the name of a namespace")
    for what, image in (
        ("engine_image", desired.platform.engine_image),
        ("picker_image", desired.platform.picker_image),
    ):
        if not PINNED.fullmatch(image):
            raise invalid(f"platform.{what}", image, "HOST/REPOSITORY@sha256:… (pin it by digest)")
    if desired.request_seconds < 1:
        raise invalid("request_seconds", desired.request_seconds, "at least 1")


def _members(desired: Desired) -> None:
    stable, candidate, weight = desired.stable, desired.candidate, desired.weight
    if stable is None and candidate is None:
        raise invalid("stable", None, "a member; a model without one has no manifests")
    if not 0 <= weight <= 100 or (candidate is None and weight):
        raise invalid("weight", weight, "0 to 100, and 0 without a candidate")
    if stable and candidate and stable.version == candidate.version:
        raise invalid("candidate.version", candidate.version, f"another than stable's, {stable.version}")
    if desired.strategy == "swap" and weight not in (0, 100):
        raise invalid("weight", weight, "0 or 100 with strategy swap, where one engine runs at a time")
    if desired.strategy == "adapter":
        _one_engine(desired)
    if desired.form == "llminferenceservice" and any(member.adapter for member in desired.members):
        raise invalid(
            "form", desired.form, "inferenceservice or deployment: LLMInferenceService takes no oci:// adapters"
        )


def _one_engine(desired: Desired) -> None:
    if any(member.adapter is None for member in desired.members):
        raise invalid("strategy", "adapter", "an adapter in each member; use pool or swap for a full model")
    names = [member.adapter.name for member in desired.members if member.adapter]
    if len(set(names)) < len(names) or desired.model in names:
        raise invalid("adapter.name", names[-1], f"one of its own, and not {desired.model}, which clients ask for")


def _member(desired: Desired, member: Member) -> None:
    if not VERSION.fullmatch(member.version):
        raise invalid("version", member.version, "lower-case letters, digits and dashes, at most 15")
    if not PINNED.fullmatch(member.modelcar):
        raise invalid("modelcar", member.modelcar, "HOST/REPOSITORY@sha256:… (a tag can be moved)")
    name = desired.name_of(member)
    if len(f"{name}-{desired.namespace}") > LONGEST_LABEL or len(f"{name}-predictor") > LONGEST_LABEL:
        raise invalid("model", name, f"with the namespace at most {LONGEST_LABEL} characters in one host name")
    if member.replicas < 1 or member.startup_seconds < 1 or member.resources.gpus < 1:
        raise invalid("replicas, startup_seconds and gpus", (member.replicas, member.startup_seconds), "at least 1")
    _sizes(member.resources)


def _sizes(resources: Resources) -> None:
    if parse_quantity(resources.cpu) > parse_quantity(resources.cpu_limit):
        raise invalid("resources.cpu", resources.cpu, f"at most the limit, {resources.cpu_limit}")
    memory, limit, shm = (parse_quantity(each) for each in (resources.memory, resources.memory_limit, resources.shm))
    if memory > limit:
        raise invalid("resources.memory", resources.memory, f"at most the limit, {resources.memory_limit}")
    if shm >= limit:
        raise invalid(
            "resources.shm", resources.shm, f"below the memory limit, {resources.memory_limit}: it counts against it"
        )
