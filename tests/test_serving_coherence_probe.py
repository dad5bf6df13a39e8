"""The live probe and its own upstream; with a real Envoy in between, whose route's limit is declared rightly, and wrongly."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from serving.coherence.chains import chains
from serving.coherence.objects import read_paths
from serving.coherence.probe import Observed, Probe, Timed
from serving.coherence.probe_engine import upstream
from tests.fix_coherence_live import envoy
from tests.fix_envoy import free_ports

CHAIN = '{"liftlock": "chain", "hops": {"chat": [{"name": "edge", "total": "%s"}]}}'


def test_an_upstream_that_ends_hangs_up_so_that_the_next_one_at_its_address_is_asked() -> None:
    """A proxy keeps its connection; the old upstream went on answering there, and the new one saw nothing."""
    body = {"model": "x", "messages": [{"role": "user", "content": "probe: answer"}]}
    with httpx.Client(trust_env=False, transport=httpx.HTTPTransport(retries=1)) as client:
        with upstream("127.0.0.1", 0) as first:
            assert client.post(f"{first.url}/v1/chat/completions", json=body).status_code == 200
        with upstream("127.0.0.1", int(first.url.rpartition(":")[2])) as second:
            assert client.post(f"{second.url}/v1/chat/completions", json=body).status_code == 200
            assert (len(first.asked), len(second.asked)) == (1, 1)


def test_each_row_of_the_probe_agrees_with_what_is_true_and_with_nothing_else(tmp_path: Path) -> None:
    """Envoy cuts at 3 s. One file says so; the other says 2 s, and the three rows that this time ends disagree."""

    def probed(said: str) -> dict[str, Observed]:
        file = tmp_path / f"{said}.json"
        file.write_text(CHAIN % said)
        with ExitStack() as stack:
            engine = stack.enter_context(upstream("127.0.0.1", 0))
            (port,) = free_ports(1)
            folder = tmp_path / said
            folder.mkdir()
            stack.enter_context(envoy(folder, (port, int(engine.url.rpartition(":")[2]), "3s")))
            (chain,) = chains(read_paths([file]))
            rows = Probe(f"http://127.0.0.1:{port}/v1", "chat", None, engine, chain, 30.0).all()
        return {row.kind: row for row in rows}

    with ThreadPoolExecutor(2) as pool:
        right, wrong = pool.map(probed, ("3s", "2s"))
    assert [row for row in right.values() if not row.agrees] == []
    assert {kind for kind, row in wrong.items() if not row.agrees} == {
        "silent, whole", "silent, streamed", "slow stream",
    }  # fmt: skip
    assert {kind: row.requests for kind, row in right.items() if kind != "plain, beside them"} == dict.fromkeys(
        set(right) - {"plain, beside them"}, 1
    )
    assert right["silent, whole"].outcome == "504" and right["dies in mid-stream"].outcome.startswith("cut")
    assert right["client leaves, whole"].outcome == right["client leaves, streamed"].outcome == "the upstream was told"


@pytest.mark.parametrize(
    ("seconds", "requests", "late", "agrees"),
    [
        (8.1, 1, 0.0, True), (8.0, 1, 0.0, False), (9.9, 1, 0.0, True), (10.0, 1, 0.0, False), (10.0, 1, 0.2, True),
        (10.4, 2, 0.3, True), (10.6, 2, 0.3, False),
    ],
)  # fmt: skip
def test_a_time_agrees_within_a_tenth_and_what_plain_requests_took(
    seconds: float, requests: int, late: float, agrees: bool
) -> None:
    row = Observed("silent, whole", seconds, requests, "504", 9.0, None, True)
    assert Timed(row, 9.0, 9.0).judged(late).agrees is agrees


def test_an_address_where_nobody_can_listen_is_bad_input() -> None:
    from serving.coherence.probe_engine import AddressTaken
    from tasks.exit_codes import code_of

    with upstream("127.0.0.1", 0) as there:
        port = int(there.url.rpartition(":")[2])
        for address in (("127.0.0.1", port), ("127.0.0.1", 99999), ("name.invalid", 8000)):
            with pytest.raises(AddressTaken, match="name a free address of this machine") as found, upstream(*address):
                pass
            assert code_of(found.value) == 2
