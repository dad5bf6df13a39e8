"""A step's requests from vLLM's counters, by a small server that answers Prometheus' instant queries as it does."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from serving.delivery.engine_counters import EngineCounters, PrometheusUnread, samples_between
from serving.rollout.analysis import AnalysisPolicy, judge_clients

STABLE, CANDIDATE = "tickets-v3", "tickets-v30"
BOUNDS = ("0.1", "0.5", "+Inf")


@dataclass
class Prometheus:
    """`pods`: counters by pod: first-token seconds of each request, and how many ended in error."""

    url: str = ""
    pods: dict[str, tuple[list[float], int]] = field(default_factory=dict)
    status: int = 200

    def answer(self, query: str) -> Any:
        label = re.search(r"sum by \((\w+)\)", query)
        pod = re.search(r'pod=~"([^"]+)"', query)
        assert label and pod and 'namespace="serving"' in query
        mine = [counted for name, counted in self.pods.items() if re.fullmatch(pod[1], name)]
        if "time_to_first_token" in query:
            values = {bound: sum(t <= float(bound) for times, _ in mine for t in times) for bound in BOUNDS if mine}
        else:
            values = (
                {"stop": sum(len(times) for times, _ in mine), "error": sum(errors for _, errors in mine)}
                if mine
                else {}
            )
        result = [{"metric": {label[1]: key}, "value": [0, str(value)]} for key, value in values.items()]
        return {"status": "success", "data": {"resultType": "vector", "result": result}}


@pytest.fixture
def prometheus() -> Iterator[Prometheus]:
    made = Prometheus()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            data = json.dumps(made.answer(parse_qs(urlsplit(self.path).query)["query"][0])).encode()
            self.send_response(made.status)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    made.url = f"http://127.0.0.1:{server.server_port}"
    yield made
    server.shutdown()
    server.server_close()


def test_a_steps_requests_are_those_since_its_start_by_version(prometheus: Prometheus) -> None:
    prometheus.pods = {f"{STABLE}-aaa-1": ([0.05] * 7, 0), f"{CANDIDATE}-bbb-1": ([0.05], 0)}
    counters = EngineCounters(prometheus.url, "serving", read_seconds=0)
    counters.start(STABLE, CANDIDATE, 50)
    assert counters.samples() == []
    prometheus.pods = {f"{STABLE}-aaa-1": ([0.05] * 9, 0), f"{CANDIDATE}-bbb-1": ([0.05, 0.3, 9.0], 1)}
    found = counters.samples()
    by = {
        name: sorted((one.first_token_seconds or -1) for one in found if one.version == name)
        for name in (STABLE, CANDIDATE)
    }
    assert by == {STABLE: [0.1, 0.1], CANDIDATE: [-1, 0.5, 0.5]}  # bounds of the buckets; the error has no time
    assert [one.ok for one in found].count(False) == 1
    assert len(counters.samples()) == len(found)


def test_an_engine_that_was_restarted_counts_from_zero() -> None:
    before = ({"0.1": 5.0, "+Inf": 8.0}, {"error": 2.0})
    found = samples_between(CANDIDATE, before, ({"0.1": 1.0, "+Inf": 1.0}, {"error": 0.0}))
    assert [(one.ok, one.first_token_seconds) for one in found] == [(True, 0.1)]


def test_errors_that_the_engine_counts_undo_a_step(prometheus: Prometheus) -> None:
    prometheus.pods = {f"{STABLE}-aaa-1": ([], 0), f"{CANDIDATE}-bbb-1": ([], 0)}
    counters = EngineCounters(prometheus.url, "serving", read_seconds=0)
    counters.start(STABLE, CANDIDATE, 50)
    prometheus.pods = {f"{STABLE}-aaa-1": ([0.05] * 50, 0), f"{CANDIDATE}-bbb-1": ([0.05] * 40, 10)}
    policy = AnalysisPolicy(min_requests=12, max_error_rate=0.0, max_first_token_ratio=2)
    bad, _ = judge_clients(counters.samples(), STABLE, CANDIDATE, 50, policy)
    assert bad and "10 of 50" in bad.note
    prometheus.pods[f"{CANDIDATE}-bbb-1"] = ([0.05] * 90, 10)
    counters.start(STABLE, CANDIDATE, 100)
    bad, _ = judge_clients(counters.samples(), STABLE, CANDIDATE, 100, policy)
    assert bad is None


def test_a_prometheus_that_does_not_answer_is_one_sentence(prometheus: Prometheus) -> None:
    prometheus.status = 503
    with pytest.raises(PrometheusUnread, match="LIFTLOCK_PROMETHEUS_URL"):
        EngineCounters(prometheus.url, "serving").start(STABLE, CANDIDATE, 10)
