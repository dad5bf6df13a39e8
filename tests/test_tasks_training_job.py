"""The Job of a training, judged by a real API server: restricted pods, Kueue's labels, a g2-standard-4; and what never runs."""

from __future__ import annotations

import copy
import re
from dataclasses import replace
from typing import Any

import pytest

from serving.fit.quantity import parse_quantity
from tasks.settings import Settings
from tasks.spec import NAME
from tasks.train_on_cluster import TrainingUnset, place_of
from tasks.training_job import HOME, Object, Place, Pod, job_name, render_job, too_small
from tests.fix_api_server import ApiServer
from tests.test_deploy_prefect import G2_STANDARD_4, QUEUE, RESTRICTED, create, pod_of

IMAGE = f"registry.acme.dev/liftlock/training@sha256:{'a' * 64}"
PLACE = Place(IMAGE, "mlops", "mlops-gpu", "liftlock-training", "cloud.google.com/gke-accelerator")
POD = Pod("nvidia-l4", "3", "11Gi", "low-priority", 3600)
KEY = "0123456789abcdef" * 4


def job(pod: Pod = POD) -> Object:
    return render_job(PLACE, pod, "ticket-router", KEY, "run-1", "b" * 64)


@pytest.mark.parametrize("pod", [POD, replace(POD, gpu=None, priority=None)], ids=["L4", "no card"])
def test_the_job_is_valid_and_its_pod_is_admitted_where_only_restricted_ones_are(
    api_server: ApiServer, pod: Pod
) -> None:
    namespace = api_server.namespace(RESTRICTED)
    answer = create(api_server, namespace, job(pod))
    assert answer.status_code == 201, answer.text
    assert "Warning" not in answer.headers, answer.headers["Warning"]
    answer = api_server.create_pod(namespace, pod_of(job(pod), namespace))
    assert answer.status_code == 201, answer.text


def test_the_same_pod_as_root_is_not_admitted(api_server: ApiServer) -> None:
    namespace = api_server.namespace(RESTRICTED)
    made = pod_of(job(), namespace)
    made["spec"]["securityContext"] |= {"runAsNonRoot": False, "runAsUser": 0}
    assert api_server.create_pod(namespace, made).status_code == 403


def test_job_and_pod_stand_in_the_queue_and_fit_a_g2_standard_4() -> None:
    made = job()
    template = made["spec"]["template"]
    assert made["metadata"]["labels"][QUEUE] == template["metadata"]["labels"][QUEUE] == "mlops-gpu"
    assert made["metadata"]["labels"]["kueue.x-k8s.io/priority-class"] == "low-priority"
    assert made["spec"]["suspend"] is True
    (container,) = template["spec"]["containers"]
    for resource, size in container["resources"]["requests"].items():
        factor = 2**30 if resource == "memory" else 1
        assert parse_quantity(size) / factor <= G2_STANDARD_4[resource]
    assert container["image"] == IMAGE
    volumes = {one["name"]: one for one in template["spec"]["volumes"]}
    (mounted,) = [one["name"] for one in container["volumeMounts"] if one["mountPath"] == HOME]
    assert volumes[mounted]["persistentVolumeClaim"] == {"claimName": "liftlock-training"}


def test_the_longest_name_of_a_model_gives_a_valid_one() -> None:
    """A Job's name is a label of its pods: at most 63 characters."""
    longest = "a" * 40
    assert re.fullmatch(NAME, longest) and not re.fullmatch(NAME, f"{longest}a")
    assert len(job_name(longest, KEY)) <= 63


@pytest.mark.parametrize("image", [None, "registry.acme.dev/training:latest", "registry.acme.dev/training@sha256:abc"])
def test_an_image_without_a_digest_is_refused(image: str | None) -> None:
    with pytest.raises(TrainingUnset, match="LIFTLOCK_TRAINING_IMAGE"):
        place_of(Settings(training_image=image, mlflow_uri="http://mlflow:5000"), "label")


def test_the_local_stacks_mlflow_is_refused() -> None:
    with pytest.raises(TrainingUnset, match="LIFTLOCK_MLFLOW_URI"):
        place_of(Settings(training_image=IMAGE, mlflow_uri=None), "label")


# --- what never runs


def queue(*flavors: dict[str, str], **spec: Any) -> Object:
    covered = list(flavors[0])
    made = [
        {"name": f"flavor-{number}", "resources": [{"name": name, "nominalQuota": size} for name, size in one.items()]}
        for number, one in enumerate(flavors)
    ]
    return {"metadata": {"name": "gpu-cq"}, "spec": {"resourceGroups": [{"coveredResources": covered, "flavors": made}], **spec}}  # fmt: skip


FULL = {"cpu": "8", "memory": "32Gi", "nvidia.com/gpu": "1"}


def limited(hard: dict[str, str]) -> list[Object]:
    return [{"metadata": {"name": "mlops"}, "spec": {"hard": hard}}]


def ranged(most: dict[str, str]) -> list[Object]:
    return [{"metadata": {"name": "mlops"}, "spec": {"limits": [{"type": "Container", "max": most}]}}]


@pytest.mark.parametrize(
    ("found", "quotas", "limits", "said"),
    [
        (queue(FULL), [], [], []),
        (queue({**FULL, "cpu": "3"}), [], [], []),  # exactly enough
        (queue({**FULL, "cpu": "2999m"}), [], [], ["ClusterQueue gpu-cq gives cpu 2999m of flavor flavor-0, the training asks for 3"]),
        (queue({"cpu": "8", "memory": "32Gi"}), [], [], ["ClusterQueue gpu-cq does not cover nvidia.com/gpu"]),
        (queue({**FULL, "nvidia.com/gpu": "0"}, FULL), [], [], []),  # one flavor is enough
        (queue({**FULL, "nvidia.com/gpu": "0"}, {**FULL, "memory": "8Gi"}), [], [],  # none has both
         ["ClusterQueue gpu-cq gives nvidia.com/gpu 0 of flavor flavor-0, the training asks for 1"]),
        (queue({**FULL, "nvidia.com/gpu": "0"}, cohortName="all"), [], [], []),  # borrowed
        (queue(FULL), limited({"requests.memory": "10Gi"}), [], ["ResourceQuota mlops has requests.memory 10Gi, the training asks for 11Gi"]),
        (queue(FULL), limited({"pods": "3", "requests.cpu": "8"}), [], []),
        (queue(FULL), [], ranged({"memory": "8Gi"}), ["LimitRange mlops lets a container have memory 8Gi, the training asks for 11Gi"]),
    ],
)  # fmt: skip
def test_what_never_lets_it_run_is_named(found: Object, quotas: Any, limits: Any, said: list[str]) -> None:
    assert too_small(POD, found, quotas, limits) == said


def test_what_a_cohort_lends_at_most_counts() -> None:
    found = copy.deepcopy(queue({**FULL, "nvidia.com/gpu": "0"}, cohortName="all"))
    for one in found["spec"]["resourceGroups"][0]["flavors"][0]["resources"]:
        one["borrowingLimit"] = "0"
    assert too_small(POD, found, [], [])
