"""delivery.cluster and training.cluster of release.yaml: how a model is served and trained on Kubernetes.

What the cluster is called is in deploy/serving/platform.yaml and the settings.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from tasks.gate_spec import Part

QUANTITY = r"^[0-9]{1,9}(\.[0-9]{1,3})?(m|k|[MGT]|[KMGT]i)?$"


class AliasSpec(Part):
    """The model's entry in LiteLLM's model_list."""

    name: str | None = Field(None, description="What clients call it there; left out, the model's name.")
    input_cost_per_token: float = Field(gt=0, description="Dollars; without a cost budgets never bind.")
    output_cost_per_token: float = Field(gt=0, description="Dollars.")
    info: dict[str, Any] = Field(
        {}, description="model_info: owner, tier, limits, tenants, and what else the catalogue shows."
    )


class ClusterSpec(Part):
    """Of the delivery targets gitops and kubernetes."""

    namespace: str = Field(
        "serving", pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", description="Where the model is served."
    )
    form: Literal["inferenceservice", "deployment", "llminferenceservice"] = Field(
        "inferenceservice",
        description="inferenceservice: KServe with the modelcar beside the engine; deployment: the modelcar as an image volume "
        "(Kubernetes 1.35 or newer), which passes the restricted Pod Security Standard; llminferenceservice: full models only.",
    )
    replicas: int = Field(1, ge=1, le=64, description="Engines of each version.")
    cpu: str = Field("2", pattern=QUANTITY, description="CPU that an engine asks for.")
    cpu_limit: str = Field("4", pattern=QUANTITY, description="Most CPU of an engine.")
    memory: str = Field("8Gi", pattern=QUANTITY, description="Memory that an engine asks for.")
    memory_limit: str = Field(
        "12Gi", pattern=QUANTITY, description="Most memory of an engine; /dev/shm counts against it."
    )
    shm: str = Field("2Gi", pattern=QUANTITY, description="Shared memory of an engine.")
    request_seconds: int = Field(
        240, ge=1, le=86400, description="The route's limit on one request; the pods drain as long."
    )
    startup_seconds: int | None = Field(
        None,
        ge=10,
        le=86400,
        description="Budget of a cold start; left out, from the weights and the recorded cold starts.",
    )
    alias: AliasSpec | None = Field(None, description="Left out, LiteLLM's list stays as it is.")

    @field_validator("shm", "memory")
    @classmethod
    def _some(cls, value: str) -> str:
        return some(value)


class TrainingClusterSpec(Part):
    """Of training.where kubernetes: one pod, which has its card for itself. The defaults fit a g2-standard-4."""

    gpu: str | None = Field(
        "nvidia-l4", description="Name in serving/fit/gpus.yaml; null trains without a GPU, on any node."
    )
    cpu: str = Field("3", pattern=QUANTITY, description="CPU that the training asks for.")
    memory: str = Field("11Gi", pattern=QUANTITY, description="Memory that it asks for and gets at most.")
    priority: str | None = Field(
        "low-priority",
        pattern=r"^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$",
        description="Kueue's WorkloadPriorityClass; a higher one preempts this training, which then goes on from its checkpoint.",
    )

    @field_validator("gpu")
    @classmethod
    def _known(cls, gpu: str | None) -> str | None:
        return gpu and known_gpu(gpu)

    @field_validator("cpu", "memory")
    @classmethod
    def _above_0(cls, value: str) -> str:
        return some(value)


def known_gpu(gpu: str) -> str:
    """Raises ValueError."""
    from serving.fit.catalogue import load_gpus  # read only where a spec is; the schema needs no catalogue

    if gpu not in (known := load_gpus()):
        raise ValueError(f"must be one of {', '.join(sorted(known))}")
    return gpu


def some(quantity: str) -> str:
    """Raises ValueError."""
    if quantity.strip("0.kKMGTim") == "":
        raise ValueError("must be above 0")
    return quantity
