"""Where things are. Built when first asked, never at import. Only tasks and flows read it; domain functions get arguments."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

ROOT = Path(__file__).resolve().parent.parent


class Settings(BaseSettings):
    """Environment variables with the prefix LIFTLOCK_. A part whose address is set here is used and never started."""

    model_config = SettingsConfigDict(env_prefix="LIFTLOCK_", frozen=True, extra="ignore")

    state: Path = Field(ROOT / ".liftlock", description="Folder of everything the local stack and the releases write.")
    toolchain: Path = Field(ROOT / ".toolchain", description="Folder of vLLM, promptfoo and the two models.")
    postgres_dsn: SecretStr | None = Field(
        None,
        description="postgresql://user:password@host:port; databases prefect, mlflow, liftlock and rag are expected in it.",
    )
    mlflow_uri: str | None = Field(None, description="Address of an MLflow server, e.g. http://127.0.0.1:5000.")
    prefect_api_url: str | None = Field(None, description="Address of a Prefect API, e.g. http://127.0.0.1:4200/api.")
    vllm_url: str | None = Field(None, description="Address of a vLLM server, without /v1.")
    vllm_adapters: Path | None = Field(None, description="The folder that server resolves adapters from.")
    gateway_url: str | None = Field(None, description="Address of an Envoy that reads this state's gateway folder.")
    gateway_admin_url: str | None = Field(None, description="Address of that Envoy's admin interface.")
    fallback: str | None = Field(
        None,
        description="What the gateway asks, in this order, when the engine fails before the first byte: `base` (the base model), "
        "MODEL@http://host:port; separated by commas.",
    )
    endpoints: str | None = Field(
        None,
        description="Servers of further models behind the gateway, e.g. of embeddings: MODEL@http://host:port; separated by commas.",
    )
    otlp_url: str | None = Field(
        None, description="Where the gateway and vLLM send spans: OTLP over HTTP, e.g. http://127.0.0.1:4318."
    )
    registry: str | None = Field(
        None, description="OCI registry to push to besides the layout folder, e.g. http://127.0.0.1:5055."
    )
    registry_auth_file: Path | None = Field(
        None, description="Docker's config.json with credentials or a credential helper for that registry."
    )
    registry_repository: str = Field("liftlock", description="Prefix of the repository names in that registry.")

    platform: Path = Field(
        ROOT / "deploy" / "serving" / "platform.yaml",
        description="Names and images of the cluster that models are delivered to.",
    )

    embeddings_url: str | None = Field(
        None, description="OpenAI embeddings API to index and search with; left out, a local server, started on demand."
    )
    embeddings_model: str = Field("all-MiniLM-L6-v2", description="The model's name there.")
    embeddings_revision: str | None = Field(
        None, description="Its weights' revision, where the server does not say it."
    )
    embeddings_tokenizer: Path | None = Field(None, description="Its tokenizer.json; left out, the local model's.")
    embeddings_max_tokens: int | None = Field(
        None, description="Longest text it reads, where the server does not say it."
    )
    platform_repository: str | None = Field(
        None,
        description="The platform's Git repository for target gitops: https://, ssh://, git@HOST:…, file:// or a path.",
    )
    platform_branch: str = Field("main", description="The branch that Argo CD syncs.")
    platform_folder: str = Field("serving/liftlock", description="Where a model's folder is in it.")
    platform_token: SecretStr | None = Field(None, description="Sent over https, to that host alone.")
    platform_signing_key: Path | None = Field(
        None, description="SSH private key that signs commits; left out, they are not signed."
    )
    platform_landing: Literal["push", "pull_request"] = Field(
        "push",
        description="push: straight onto the branch; pull_request: each step waits until someone merges it (GitHub).",
    )
    argocd_application: str = Field("liftlock-models", description="The Application that syncs that folder.")
    argocd_namespace: str = Field("argocd", description="Its namespace.")
    cluster_gateway_url: str | None = Field(
        None, description="The cluster's inference gateway without /v1, which a canary there is asked through."
    )
    prometheus_url: str | None = Field(
        None,
        description="The cluster's Prometheus; with it a canary of strategy pool is judged by all requests of its engines too.",
    )
    training_image: str | None = Field(
        None, description="deploy/images/training by digest, for training.where kubernetes: HOST/REPOSITORY@sha256:…."
    )
    training_namespace: str = Field("mlops", description="Where its Jobs are made.")
    training_queue: str = Field("mlops-gpu", description="Kueue's LocalQueue in that namespace.")
    training_claim: str = Field(
        "liftlock-training", description="The claim of its volume, with models and checkpoints."
    )
    api_key: SecretStr | None = Field(
        None, description="Key that questions and embeddings are asked with, such as a virtual key of LiteLLM."
    )

    signing_key: str | None = Field(
        None,
        description="Private key that signs modelcars: a file, pkcs11:… or awskms://…; left out, a pair in the state folder.",
    )
    signing_passphrase_file: Path | None = Field(
        None, description="File that holds its passphrase, or the token's PIN."
    )
    verification_key: Path | None = Field(
        None, description="Public key that a rollout trusts; left out, the one that signs."
    )

    @field_validator(
        "mlflow_uri", "prefect_api_url", "vllm_url", "gateway_url", "gateway_admin_url", "fallback", "endpoints", "otlp_url",
        "registry", "embeddings_url", "cluster_gateway_url", "prometheus_url",
    )  # fmt: skip
    @classmethod
    def _without_credentials(cls, value: str | None) -> str | None:
        """These addresses are shown: in `liftlock status`, reports, logs and the flow runs' page."""
        if value and re.search(r"://[^/\s,]*@", value):
            raise ValueError(
                "the address holds credentials, and addresses are shown; take them out (docs/local-stack.md says where they belong)"
            )
        return value

    @field_validator("postgres_dsn")
    @classmethod
    def _parsed(cls, value: SecretStr | None) -> SecretStr | None:
        """Refused here, because who parses it later quotes what cannot be parsed, password and all."""
        if value and not _is_server(value.get_secret_value()):
            raise ValueError(
                "this is not the address of a Postgres server; required: postgresql://user:password@host:port, without database and "
                "options (PGSSLMODE and its like hold those), and a password's special characters percent-encoded"
            )
        return value

    @property
    def adapters(self) -> Path:
        """Where the engine finds adapters by name."""
        return self.vllm_adapters or self.state / "adapters"

    @property
    def models(self) -> Path:
        return self.toolchain / "models"


def _is_server(dsn: str) -> bool:
    if not re.fullmatch(r"postgresql://[^\s/?#]+/?", dsn):
        return False
    from psycopg import ProgrammingError
    from psycopg.conninfo import conninfo_to_dict

    try:
        return re.fullmatch(r"[\d,]*", str(conninfo_to_dict(dsn).get("port", ""))) is not None
    except ProgrammingError:
        return False


class SettingsInvalid(Exception):
    """A LIFTLOCK_ variable whose value cannot be used. The message names it; values are not shown, for some are secrets."""


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """Raises SettingsInvalid."""
    try:
        settings = Settings()
    except ValidationError as error:
        told = (f"LIFTLOCK_{str(one['loc'][0]).upper()}: {one['msg']}" for one in error.errors())
        raise SettingsInvalid(f"{'; '.join(told)}. Set it anew or unset it") from None
    return settings.model_copy(update={"state": settings.state.absolute(), "toolchain": settings.toolchain.absolute()})
