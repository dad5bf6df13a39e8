"""Requests through rendered routes, pools and rewrites: Envoy and the real endpoint picker, instant engines at the pods' addresses."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from scipy.stats import binomtest

from serving.manifests.model import Adapter, Desired
from tests.fix_applied import RESTRICTED
from tests.fix_cluster import Cluster
from tests.fix_inference_gateway import InferenceGateway, inference_gateway
from tests.fix_rendered import adapter_member, desired, on_one_engine
from tests.fix_waiting import await_that

pytestmark = pytest.mark.slow(seconds=100)
REQUESTS = 200
CHANCE = 1e-6  # of a right share that is called wrong


@pytest.fixture
def gateway(cluster: Cluster, tmp_path: Path) -> Iterator[InferenceGateway]:
    with inference_gateway(cluster, tmp_path) as made:
        yield made


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    name = cluster.api.namespace(RESTRICTED)
    yield name
    cluster.remove_namespace(name)


def settled(gateway: InferenceGateway, model: str, done: Callable[[dict[str, Counter[str]]], bool]) -> None:
    """Until file, watch and picker have what was written: a request a look."""

    def seen() -> bool:
        gateway.ask(model)
        return done(gateway.share())

    await_that(seen)


def asked(gateway: InferenceGateway, model: str, count: int = REQUESTS) -> dict[str, Counter[str]]:
    gateway.share()
    answers = [gateway.ask(model) for _ in range(count)]
    assert {answer.status_code for answer in answers} == {200}, answers[0].text
    return gateway.share()


def is_share(hits: int, total: int, weight: int) -> bool:
    return binomtest(hits, total, weight / 100).pvalue > CHANCE if 0 < weight < 100 else hits == total * weight // 100


def test_the_share_of_a_pool_canary_is_the_weight(gateway: InferenceGateway, namespace: str) -> None:
    canary = desired(form="deployment", namespace=namespace, weight=0)
    gateway.deliver(canary)
    for weight in (0, 10, 50, 100):
        gateway.deliver(replace(canary, weight=weight))
        if weight in (0, 100):
            other = "ticket-router-v4" if weight == 0 else "ticket-router-v3"
            settled(gateway, "ticket-router", lambda found, other=other: not found[other])  # type: ignore[misc]
        else:
            settled(gateway, "ticket-router", lambda found: bool(found["ticket-router-v4"]))
        found = asked(gateway, "ticket-router")
        assert sum(found["ticket-router-v4"].values()) + sum(found["ticket-router-v3"].values()) == REQUESTS
        assert is_share(sum(found["ticket-router-v4"].values()), REQUESTS, weight), (weight, found)


def test_a_version_is_asked_for_by_its_own_name_whatever_its_weight(gateway: InferenceGateway, namespace: str) -> None:
    """The picker writes the name by which the engine serves it."""
    gateway.deliver(desired(form="deployment", namespace=namespace, weight=0))
    settled(gateway, "ticket-router-v4", lambda found: found["ticket-router-v4"] == Counter({"ticket-router": 1}))
    found = asked(gateway, "ticket-router-v4", 20)
    assert found == {"ticket-router-v3": Counter(), "ticket-router-v4": Counter({"ticket-router": 20})}
    assert gateway.ask("ticket-router-v9").status_code == 404


def test_the_share_of_two_adapters_on_one_engine_is_the_weight(gateway: InferenceGateway, namespace: str) -> None:
    """One engine, one pool: the picker draws the adapter."""
    old, new = adapter_member("3", "3"), adapter_member("4", "4")
    canary = on_one_engine(form="deployment", namespace=namespace, stable=old, candidate=new, weight=0)
    for weight in (0, 10, 50, 100):
        gateway.deliver(replace(canary, weight=weight))
        wanted = {f"ticket-router-v{version}" for version, share in ((3, 100 - weight), (4, weight)) if share}
        _until_drawn(gateway, wanted)
        found = asked(gateway, "ticket-router")["ticket-router"]
        assert set(found) == wanted
        assert is_share(found["ticket-router-v4"], REQUESTS, weight), (weight, found)
    for name in ("ticket-router-v3", "ticket-router-v4"):
        assert asked(gateway, name, 10)["ticket-router"] == Counter({name: 10})


def _until_drawn(gateway: InferenceGateway, wanted: set[str]) -> None:
    """The picker's watch has the pods and the new weights: of 30 requests none went elsewhere or nowhere, and each name came."""

    def drawn() -> bool:
        gateway.share()
        all_served = all(gateway.ask("ticket-router").status_code == 200 for _ in range(30))
        return all_served and set(gateway.share()["ticket-router"]) == wanted

    await_that(drawn)


def test_no_request_is_lost_through_releases(gateway: InferenceGateway, namespace: str) -> None:
    """Ten releases by weights under load; each promoted version is the next one's stable."""
    versions = [str(number) for number in range(1, 12)]
    made = {version: adapter_member(version, "a") for version in versions}

    def between(old: str, new: str | None, weight: int) -> Desired:
        idle = tuple(Adapter(f"ticket-router-v{each}", f"adapters/ticket-router-v{each}") for each in versions)
        held = tuple(each for each in idle if each.name not in {f"ticket-router-v{old}", f"ticket-router-v{new}"})
        return on_one_engine(
            form="deployment", namespace=namespace, stable=made[old], candidate=made[new] if new else None,
            weight=weight, idle_adapters=held,
        )  # fmt: skip

    gateway.deliver(between("1", None, 0))
    settled(gateway, "ticket-router", lambda found: bool(found["ticket-router"]))
    with Load(gateway, "ticket-router") as codes:
        for old, new in itertools.pairwise(versions):
            for weight in (0, 50, 100):
                gateway.deliver(between(old, new, weight))
            await_that(lambda new=new: gateway.ask("ticket-router").json()["id"] == f"ticket-router-v{new}")
            gateway.deliver(between(new, None, 0))
    assert set(codes) == {200}
    assert len(codes) > 100


class Load:
    """Two clients that ask without a pause; the codes that they got."""

    def __init__(self, gateway: InferenceGateway, model: str) -> None:
        self._gateway, self._model, self._stop = gateway, model, threading.Event()
        self._codes: list[int] = []
        self._threads = [threading.Thread(target=self._ask) for _ in range(2)]

    def _ask(self) -> None:
        while not self._stop.is_set():
            try:
                self._codes.append(self._gateway.ask(self._model).status_code)
            except httpx.HTTPError:
                self._codes.append(0)

    def __enter__(self) -> list[int]:
        for thread in self._threads:
            thread.start()
        return self._codes

    def __exit__(self, *_: Any) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def test_a_promotion_of_pools_loses_no_request(gateway: InferenceGateway, namespace: str) -> None:
    canary = desired(form="deployment", namespace=namespace, weight=0)
    gateway.deliver(canary)
    settled(gateway, "ticket-router", lambda found: bool(found["ticket-router-v3"]))
    with Load(gateway, "ticket-router") as codes:
        for weight in (10, 50, 100):
            gateway.deliver(replace(canary, weight=weight))
            threading.Event().wait(1)
    assert set(codes) == {200}
    assert len(codes) > 100
