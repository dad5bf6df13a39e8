"""delivery.cluster of release.yaml: how a model is served on Kubernetes. What the cluster is called is in deploy/serving/platform.yaml."""

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
        if value.strip("0.kKMGTim") == "":
            raise ValueError("must be above 0")
        return value
