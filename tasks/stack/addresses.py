"""The address of every part: the one that the settings name, else the one of the local stack."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property

from tasks.settings import Settings
from tasks.stack.kept_secrets import postgres_password
from tasks.stack.ports import remembered

DATABASES = ("prefect", "mlflow", "liftlock", "rag")
POSTGRES_USER = "liftlock"


class StackDown(Exception):
    """A part has no address: nothing is set and the local stack was never started."""


@dataclass(frozen=True)
class Addresses:
    """Where the parts answer. URLs have no trailing slash. Each is looked up when it is first asked for, because not every command
    needs every part: one that delivers to a cluster asks no engine and no gateway of this machine.

    Raises StackDown when a part that is asked for is neither set nor assigned a port.
    """

    settings: Settings

    @cached_property
    def postgres(self) -> str:
        return postgres_address(self.settings)

    @cached_property
    def mlflow(self) -> str:
        return mlflow_address(self.settings)

    @cached_property
    def prefect_api(self) -> str:
        return (self.settings.prefect_api_url or f"{local_address(self.settings, 'prefect')}/api").rstrip("/")

    @cached_property
    def vllm(self) -> str:
        return (self.settings.vllm_url or local_address(self.settings, "vllm")).rstrip("/")

    @cached_property
    def gateway(self) -> str:
        return gateway_address(self.settings)

    @cached_property
    def gateway_admin(self) -> str:
        return (self.settings.gateway_admin_url or local_address(self.settings, "envoy-admin")).rstrip("/")

    @cached_property
    def watch(self) -> str:
        return local(remembered(self.settings.state).get("watch", 0))

    def dsn(self, database: str) -> str:
        return f"{self.postgres}/{database}"

    @property
    def prefect_page(self) -> str:
        return self.prefect_api.removesuffix("/api")


def local(port: int) -> str:
    return f"http://127.0.0.1:{port}"


def local_address(settings: Settings, part: str) -> str:
    """Raises StackDown when the part has no port yet."""
    ports = remembered(settings.state)
    if part not in ports:
        raise StackDown(
            f"{part} has no address: it is not set and the local stack has not been started. Run `liftlock up`."
        )
    return local(ports[part])


def postgres_address(settings: Settings) -> str:
    """With user and password, without a database. Raises StackDown."""
    if settings.postgres_dsn:
        return settings.postgres_dsn.get_secret_value().rstrip("/")
    host = local_address(settings, "postgres").removeprefix("http://")
    return f"postgresql://{POSTGRES_USER}:{postgres_password(settings.state)}@{host}"


def gateway_address(settings: Settings) -> str:
    """Raises StackDown."""
    return (settings.gateway_url or local_address(settings, "envoy")).rstrip("/")


def mlflow_address(settings: Settings) -> str:
    """Raises StackDown."""
    return (settings.mlflow_uri or local_address(settings, "mlflow")).rstrip("/")


def addresses(settings: Settings) -> Addresses:
    """Asks for none of them yet."""
    return Addresses(settings)


def export_client_settings(where: Addresses) -> None:
    """Point the clients of this process (prefect, mlflow) at the parts. Called once by a command, before they are imported.
    Raises StackDown.
    """
    os.environ["PREFECT_API_URL"] = where.prefect_api
    export_mlflow(where.mlflow)


def export_mlflow(address: str) -> None:
    """Point this process' mlflow there, for commands that need nothing else."""
    os.environ["MLFLOW_TRACKING_URI"] = address
    os.environ.update(QUIET)


QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_LOGGING_LEVEL": "WARNING",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
