"""A client by KUBECONFIG or ~/.kube/config, in a pod by its service account; and what goes wrong in one sentence."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException
from urllib3.exceptions import HTTPError


class ClusterUnreachable(Exception):
    """No API server answers."""


class NoCluster(ClusterUnreachable):
    """There is no kubeconfig, or it does not have the context: asking again does not help."""


class ClusterRefused(Exception):
    """The API server said no: rights, validation, admission."""

    def __init__(self, message: str, status: int, causes: tuple[Mapping[str, str], ...] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.causes = causes


def connect(
    context: str | None = None, kubeconfig: str | None = None, *, retries: bool = True, threads: int = 1
) -> client.ApiClient:
    """`context` None: the current one, or the pod's own account. `kubeconfig` None: where kubectl finds it.

    Asks nothing yet. Raises NoCluster.
    """
    settings = client.Configuration()
    if not retries:
        settings.retries = False
    try:
        config.load_kube_config(kubeconfig, context, settings)  # type: ignore[no-untyped-call]
    except (ConfigException, OSError, ValueError, KeyError, TypeError) as error:
        _of_this_pod(
            settings, f"no cluster: {error}; set KUBECONFIG to the cluster's kubeconfig, or name a context of it"
        )
    return client.ApiClient(settings, pool_threads=threads)


def _of_this_pod(settings: client.Configuration, otherwise: str) -> None:
    try:
        config.load_incluster_config(client_configuration=settings)  # type: ignore[no-untyped-call]
    except ConfigException:
        raise NoCluster(otherwise) from None


@contextmanager
def told(what: str, server: str) -> Iterator[None]:
    """Around a call: `what` is asked of `server`. Raises ClusterRefused, ClusterUnreachable."""
    try:
        yield
    except ApiException as error:
        raise refusal(what, int(error.status or 0), str(error.body or ""), str(error.reason)) from None
    except (HTTPError, OSError) as error:
        raise ClusterUnreachable(
            f"the API server at {server} does not answer: {str(error)[:300]}; start it, or name another cluster by KUBECONFIG"
        ) from None


def refusal(what: str, status: int, body: str, reason: str) -> ClusterRefused:
    """From an answer's body, which is a Status where the API server itself wrote it."""
    try:
        said = json.loads(body)
        causes = tuple((said.get("details") or {}).get("causes") or ())
        return ClusterRefused(f"{what}: {said.get('message') or reason}", status, causes)
    except (TypeError, ValueError, AttributeError):
        return ClusterRefused(f"{what}: {reason}", status)
