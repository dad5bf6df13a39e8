"""MLflow's aliases and tags, asked once with a time limit: a retry that comes late would undo somebody else's move."""

from __future__ import annotations

from typing import Any, Protocol

import requests
from mlflow.exceptions import MlflowException
from mlflow.tracking._tracking_service.utils import get_default_host_creds
from mlflow.utils.rest_utils import http_request

TIMEOUT = (2.0, 3.0)  # seconds to connect, to answer
SETTLED_SECONDS = 8.0  # after this long a call that was given up has happened or never will
ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


class RegistryUnreachable(ConnectionError):
    """MLflow did not answer, or said that it cannot now: whether the call happened is not known."""


class RegistryRefused(Exception):
    """MLflow said no: the model or the version does not exist, or the caller may not."""


class Registry(Protocol):
    """What a move asks of MLflow. Each call is tried once."""

    def alias(self, model: str, alias: str) -> str | None: ...

    def set_alias(self, model: str, alias: str, version: str) -> None: ...

    def delete_alias(self, model: str, alias: str) -> None: ...

    def tag(self, model: str, version: str, key: str, value: str) -> None: ...


class MlflowRegistry:
    """By MLflow's REST API 2.0 at `uri`, with the credentials that MLflow's own client would use."""

    def __init__(self, uri: str) -> None:
        self._credentials = get_default_host_creds(uri)
        self._uri = uri

    def _call(self, method: str, what: str, **arguments: str) -> dict[str, Any]:
        how = {"params": arguments} if method == "GET" else {"json": arguments}
        try:
            answer = http_request(
                self._credentials, f"/api/2.0/mlflow/{what}", method, max_retries=0, timeout=TIMEOUT,
                raise_on_status=False, **how,
            )  # fmt: skip
        except (MlflowException, requests.RequestException) as error:
            raise RegistryUnreachable(
                f"MLflow at {self._uri} did not answer {method} {what}: {str(error)[:200]}; start it, then run this again"
            ) from None
        if answer.status_code == 200:
            return dict(answer.json())
        if answer.status_code in (408, 429) or answer.status_code >= 500:
            raise RegistryUnreachable(
                f"MLflow at {self._uri} answered {method} {what} with status {answer.status_code}"
            )
        raise RegistryRefused(_said(answer))

    def alias(self, model: str, alias: str) -> str | None:
        """The version the alias names, None where there is no such alias or model."""
        try:
            found = self._call("GET", "registered-models/alias", name=model, alias=alias)
        except RegistryRefused as refused:
            if str(refused).startswith(ABSENT):
                return None
            raise
        return str(found["model_version"]["version"])

    def set_alias(self, model: str, alias: str, version: str) -> None:
        self._call("POST", "registered-models/alias", name=model, alias=alias, version=version)

    def delete_alias(self, model: str, alias: str) -> None:
        self._call("DELETE", "registered-models/alias", name=model, alias=alias)

    def tag(self, model: str, version: str, key: str, value: str) -> None:
        self._call("POST", "model-versions/set-tag", name=model, version=version, key=key, value=value)


def _said(answer: requests.Response) -> str:
    try:
        body = answer.json()
        return f"{body['error_code']}: {body['message']}"
    except (ValueError, KeyError, TypeError):
        return f"MLflow answered with status {answer.status_code}: {answer.text[:200]}"
