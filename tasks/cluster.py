"""The cluster of the current kubeconfig, or the one that this pod runs in: whether it has room."""

from __future__ import annotations

from dataclasses import replace

from serving.kube.connect import connect, told
from serving.manifests.capacity import can_surge, hold
from serving.manifests.model import Desired
from serving.manifests.read_room import read_room
from serving.manifests.room import Room


def hold_to_cluster(desired: Desired) -> str:
    """What was read, for people. Raises NotSchedulable, ClusterUnreachable, ClusterRefused."""
    room = _read(desired)
    hold(desired, room)
    return f"schedulable on {len(room.nodes)} nodes under {len(room.quotas)} quotas of namespace {desired.namespace}"


def fitted(desired: Desired) -> Desired:
    """Without a gap where a second engine finds a place while it replaces the first (strategy adapter). Raises ClusterUnreachable,
    ClusterRefused.
    """
    if desired.strategy != "adapter":
        return desired
    asked = replace(desired, surge=True)
    return asked if can_surge(asked, _read(asked)) else desired


def _read(desired: Desired) -> Room:
    api = connect()
    with told(
        f"nodes, pods, resourcequotas and limitranges must be readable for namespace {desired.namespace}",
        api.configuration.host,
    ):
        return read_room(api, desired)
