"""A cluster with one L4 and Kueue's queues, as the platform has them, and the namespace of deploy/mlops on it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.fix_cluster import Cluster, running_cluster
from tests.fix_complete_cluster import platform, thing
from tests.fix_controllers import start_kueue
from tests.fix_deploy import DEPLOY, Objects, rendered

JOBS, PODS = "/apis/batch/v1/namespaces/mlops/jobs", "/api/v1/namespaces/mlops/pods"
QUEUES = ("ResourceFlavor", "ClusterQueue", "WorkloadPriorityClass")
SECONDS = 240


@pytest.fixture(scope="session")
def queued(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One L4, the platform's queues, and deploy/mlops with its quota, limits and restricted pods."""
    with running_cluster(tmp_path_factory.mktemp("queued"), nodes=1) as cluster:
        start_kueue(cluster)
        objects = Objects(cluster.api)
        for one, _ in platform():
            if one["kind"] in QUEUES:
                objects.put(one)
        for one in [*rendered(DEPLOY / "mlops"), *rendered(DEPLOY / "state")]:
            if one["kind"] != "ExternalSecret":
                objects.put(one)
        for claim in ("liftlock-state", "liftlock-training"):
            _bind(cluster, objects, claim)
        yield cluster


def _bind(cluster: Cluster, objects: Objects, claim: str) -> None:
    objects.put(thing("v1", "PersistentVolume", claim, spec={
        "capacity": {"storage": "60Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "",
        "hostPath": {"path": "/state"}, "claimRef": {"namespace": "mlops", "name": claim},
    }))  # fmt: skip
    path = objects.path(thing("v1", "PersistentVolumeClaim", claim, "mlops"))
    until(lambda: cluster.get(path)["status"], "Bound")


def until(ask: Callable[[], Any], wanted: str | Callable[[Any], bool]) -> Any:
    """`wanted`: a phase, or a judgement."""
    deadline = time.monotonic() + SECONDS
    while True:
        found = ask()
        if found.get("phase") == wanted if isinstance(wanted, str) else wanted(found):
            return found
        assert time.monotonic() < deadline, f"still {found}"
        time.sleep(0.1)
