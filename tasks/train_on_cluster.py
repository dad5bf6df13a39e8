"""training.where kubernetes: the order goes into an MLflow run, a Job in Kueue's queue carries it out, the adapter comes back.

The Job is found by its name, which follows from the model and from all that the adapter depends on. So a release that was killed
attaches to the Job of before, and a Job that is done already is not run again. `kubectl delete job` stops a training.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient

from serving.delivery.kube_api import KubeApi, patiently
from serving.kube.connect import ClusterRefused
from tasks.child import ChildFailed
from tasks.lora import TrainingPoint, TrainingRefused
from tasks.settings import Settings
from tasks.training_job import PINNED, RUN, Object, Place, Pod, job_name, render_job, too_small
from tasks.training_order import (
    FAILED,
    KEY,
    PROGRESS,
    REFUSED,
    RESULT,
    Order,
    fetch_result,
    find_run,
    new_run,
    send_order,
)
from tasks.training_state import admitted, ending, finished, holds, in_queue, suspended

LOOK_SECONDS = 2.0
PATIENT_SECONDS = 300.0  # with an API server that restarts
KUEUE = "kueue.x-k8s.io/v1beta2"


class TrainingUnset(ValueError):
    """A setting that training on a cluster needs is missing."""


class QueueTooSmall(Exception):
    """The queue or the namespace never lets this training run."""


@dataclass(frozen=True)
class Seat:
    """The parts that a training on a cluster is carried out with. `tell` gets sentences, `progress` each new step."""

    api: KubeApi
    place: Place
    client: MlflowClient
    tell: Callable[[str], None]
    progress: Callable[[TrainingPoint], None] = lambda _: None
    look_seconds: float = LOOK_SECONDS


@dataclass(frozen=True)
class Trained:
    """`run` is MLflow's, which has the adapter's files and the loss already; None for a training on this machine."""

    run: str | None
    curve: tuple[TrainingPoint, ...]


def place_of(settings: Settings, gpu_label: str) -> Place:
    """Raises TrainingUnset."""
    image = settings.training_image or ""
    if not PINNED.fullmatch(image):
        raise TrainingUnset(
            f"LIFTLOCK_TRAINING_IMAGE is {image or 'not set'}; required: the image of deploy/images/training by digest, "
            "HOST/REPOSITORY@sha256:…"
        )
    if settings.mlflow_uri is None:
        raise TrainingUnset(
            "training.where is kubernetes, and its pods do not reach the local stack's MLflow; set LIFTLOCK_MLFLOW_URI to the cluster's"
        )
    return Place(image, settings.training_namespace, settings.training_queue, settings.training_claim, gpu_label)


def train_on_cluster(
    seat: Seat, pod: Pod, model: str, key: str, order: Order, dialogs: Path, out: Path, *, fresh: bool = False
) -> Trained:
    """The adapter lies in `out`.

    Raises QueueTooSmall, TrainingRefused, ChildFailed, OrderRefused, ClusterRefused, ClusterUnreachable, MlflowException.
    """
    path = seat.api.path("batch/v1", "Job", seat.place.namespace, job_name(model, key))
    job = seat.api.get(path)
    if job is not None and (fresh or holds(job, "Failed")):
        _remove(seat, path)
        job = None
    if job is not None:
        seat.tell(f"attached to Job {job['metadata']['name']} of an earlier command")
        run = str(job["metadata"]["annotations"][RUN])
    else:
        run = find_run(seat.client, model, key, fresh=fresh) or ""
        if not run or RESULT not in seat.client.get_run(run).data.tags:
            refuse_what_never_runs(seat.api, seat.place, pod)
            run = run or new_run(seat.client, model, key, {KEY: key})
            _submit(seat, pod, model, key, run, order, dialogs)
    _await(seat, path, run)
    return Trained(run, fetch_result(seat.client, run, out))


def _remove(seat: Seat, path: str) -> None:
    """And wait until it is gone, so that its name is free."""
    seat.api.delete(path)
    while patiently(lambda: seat.api.get(path), PATIENT_SECONDS) is not None:
        time.sleep(seat.look_seconds)


def _submit(seat: Seat, pod: Pod, model: str, key: str, run: str, order: Order, dialogs: Path) -> None:
    send_order(seat.client, run, order, dialogs)
    job = render_job(seat.place, pod, model, key, run, order.sha256)
    try:
        seat.api.call("post", seat.api.path("batch/v1", "Job", seat.place.namespace), job)
    except ClusterRefused as refused:
        if refused.status != 409:  # the answer to an earlier try was lost
            raise
    seat.tell(f"Job {job['metadata']['name']} in namespace {seat.place.namespace}, MLflow run {run}")


def refuse_what_never_runs(api: KubeApi, place: Place, pod: Pod) -> None:
    """Raises QueueTooSmall."""
    queue = api.get(api.path(KUEUE, "LocalQueue", place.namespace, place.queue))
    if queue is None:
        raise QueueTooSmall(
            f"namespace {place.namespace} has no LocalQueue {place.queue}; apply deploy/mlops, or set LIFTLOCK_TRAINING_QUEUE"
        )
    leads_to = queue["spec"]["clusterQueue"]
    cluster_queue = api.get(api.path(KUEUE, "ClusterQueue", None, leads_to))
    if cluster_queue is None:
        raise QueueTooSmall(f"LocalQueue {place.queue} leads to ClusterQueue {leads_to}, which does not exist; make it")
    lists = [
        api.call("get", api.path("v1", kind, place.namespace))["items"] for kind in ("ResourceQuota", "LimitRange")
    ]
    short = too_small(pod, cluster_queue, *lists)
    if short:
        raise QueueTooSmall(
            f"the training would wait for ever: {'; '.join(short)}; lower training.cluster in release.yaml or raise it there. "
            "Nothing was submitted"
        )


def _await(seat: Seat, path: str, run: str) -> None:
    """Until the adapter is in MLflow. Raises TrainingRefused, ChildFailed."""
    said, step = "", -1
    while True:
        job, state = patiently(lambda: _look(seat, path), PATIENT_SECONDS)
        tags = seat.client.get_run(run).data.tags  # read after the Job, so an ended one has said all
        if PROGRESS in tags and (point := TrainingPoint(**json.loads(tags[PROGRESS]))).step != step:
            step = point.step
            seat.progress(point)
        if RESULT in tags:
            return
        if job is None or finished(job):
            _raise_for(seat, path, job, tags)
        if state != said:
            said = state
            seat.tell(said)
        time.sleep(seat.look_seconds)


def _look(seat: Seat, path: str) -> tuple[Object | None, str]:
    """(the Job, what it does)."""
    job = seat.api.get(path)
    return job, "" if job is None or finished(job) else _state(seat, job)


def _state(seat: Seat, job: Object) -> str:
    namespace, metadata = seat.place.namespace, job["metadata"]
    if suspended(job):
        found = seat.api.list(KUEUE, "Workload", namespace, f"kueue.x-k8s.io/job-uid={metadata['uid']}")
        return in_queue(job, found[0] if found else None)
    return admitted(*_pods(seat, job))


def _pods(seat: Seat, job: Object) -> tuple[list[Object], list[Object]]:
    """(the Job's, everybody's)."""
    every: list[Object] = seat.api.call("get", "/api/v1/pods")["items"]
    uid = job["metadata"]["uid"]
    owned = [pod for pod in every if any(one["uid"] == uid for one in pod["metadata"].get("ownerReferences") or ())]
    return owned, every


def _raise_for(seat: Seat, path: str, job: Object | None, tags: dict[str, str]) -> None:
    """Raises TrainingRefused, ChildFailed."""
    name = path.rsplit("/", 1)[1]
    if REFUSED in tags:
        raise TrainingRefused(tags[REFUSED])
    if job is None:
        raise ChildFailed(
            f"Job {name} was deleted before its end; run the same command again to go on from its checkpoint"
        )
    why = tags.get(FAILED) or ending(job, _pods(seat, job)[0])
    raise ChildFailed(f"Job {name}: {why}; run the same command again to go on from its checkpoint")
