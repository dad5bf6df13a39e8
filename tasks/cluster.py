"""The cluster of the current kubeconfig, or the one that this pod runs in: a client, and whether it has room."""

from __future__ import annotations

from dataclasses import replace

from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from serving.manifests.capacity import can_surge, hold
from serving.manifests.model import Desired
from serving.manifests.read_room import read_room
from serving.manifests.room import Room


class ClusterUnreachable(Exception):
    """No API server answers, or it does not let us read."""


def api_client() -> client.ApiClient:
    """Raises ClusterUnreachable where no kubeconfig names a cluster."""
    try:
        config.load_config()  # type: ignore[no-untyped-call]
    except config.ConfigException as error:
        raise ClusterUnreachable(f"no cluster: {error}; set KUBECONFIG") from None
    return client.ApiClient()


def hold_to_cluster(desired: Desired) -> str:
    """What was read, for people. Raises NotSchedulable, ClusterUnreachable."""
    room = _read(desired)
    hold(desired, room)
    return f"schedulable on {len(room.nodes)} nodes under {len(room.quotas)} quotas of namespace {desired.namespace}"


def fitted(desired: Desired) -> Desired:
    """Without a gap where a second engine finds a place while it replaces the first (strategy adapter). Raises ClusterUnreachable."""
    if desired.strategy != "adapter":
        return desired
    asked = replace(desired, surge=True)
    return asked if can_surge(asked, _read(asked)) else desired


def _read(desired: Desired) -> Room:
    try:
        return read_room(api_client(), desired)
    except ApiException as error:
        raise ClusterUnreachable(
            f"the API server answers {error.status} {error.reason} for namespace {desired.namespace}; nodes, pods, resourcequotas "
            "and limitranges must be readable"
        ) from None
    except HTTPError as error:
        raise ClusterUnreachable(f"no API server answers: {str(error)[:160]}; check KUBECONFIG") from None
