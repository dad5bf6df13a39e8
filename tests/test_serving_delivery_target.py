"""An undo that the cluster refuses half-way: the record is kept before the cluster has it, so the record alone proves nothing."""

from __future__ import annotations

import pytest

from serving.delivery.change import Change
from serving.delivery.effect import DeliveryFailed
from serving.delivery.record import Record
from serving.delivery.steps import beside, promoted, weighed
from serving.delivery.target import ClusterTarget
from serving.manifests.model import Desired
from tests.fix_rendered import desired, member

MODEL = "ticket-router"
STABLE, CANDIDATE = f"{MODEL}-v1", f"{MODEL}-v2"


class Cluster:
    """Keeps the record of each change and then, `refusals` times, takes nothing."""

    def __init__(self, record: Record, refusals: int = 0) -> None:
        self.record: Record | None = record
        self.runs: Record | None = record
        self.refusals = refusals

    def read(self) -> Record | None:
        return self.record

    def write(self, change: Change) -> None:
        self.record = change.record
        if self.refusals:
            self.refusals -= 1
            raise DeliveryFailed("the cluster takes nothing")
        self.runs = change.record

    def confirm_gone(self) -> None:
        self.write(Change(MODEL, None, "gone"))

    def preview(self, change: Change) -> str:
        return change.subject


def release(version: str) -> Desired:
    return desired(stable=None, candidate=member(version), weight=0, form="deployment")


def stable_alone() -> Record:
    return promoted(beside(release("1"), None, 0))


@pytest.fixture
def canary() -> Record:
    return weighed(beside(release("2"), stable_alone(), 0), 50)


def undo(cluster: Cluster) -> None:
    """As a person repeats it: each action until the cluster has taken it."""
    target = ClusterTarget(cluster, None)
    for action in (lambda: target.restore(MODEL, STABLE), lambda: target.remove(CANDIDATE)):
        while True:
            try:
                action()
                break
            except DeliveryFailed:
                continue


@pytest.mark.parametrize("refusals", range(6))
def test_an_undo_ends_when_the_cluster_has_it_however_often_it_refused(canary: Record, refusals: int) -> None:
    cluster = Cluster(canary, refusals)
    undo(cluster)
    assert cluster.refusals == 0
    assert cluster.runs == cluster.record == stable_alone()


def test_a_removal_that_was_refused_is_not_done_by_its_record(canary: Record) -> None:
    cluster = Cluster(weighed(canary, 0), refusals=1)
    target = ClusterTarget(cluster, None)
    with pytest.raises(DeliveryFailed):
        target.remove(CANDIDATE)
    assert cluster.runs == weighed(canary, 0)
    target.remove(CANDIDATE)
    assert cluster.runs == stable_alone()


def test_a_first_release_that_was_refused_its_removal_is_not_gone_by_its_record() -> None:
    first = beside(release("2"), None, 0)
    cluster = Cluster(first, refusals=2)
    target = ClusterTarget(cluster, None)
    for _ in range(2):
        with pytest.raises(DeliveryFailed):
            target.remove(CANDIDATE)
        assert cluster.record is None and cluster.runs == first
    target.remove(CANDIDATE)
    assert cluster.runs is None


def test_another_version_beside_stable_is_not_removed(canary: Record) -> None:
    cluster = Cluster(canary)
    ClusterTarget(cluster, None).remove(f"{MODEL}-v9")
    assert cluster.runs == canary
