"""The live probe's own upstream."""

from __future__ import annotations

import httpx

from serving.coherence.probe_engine import upstream


def test_an_upstream_that_ends_hangs_up_so_that_the_next_one_at_its_address_is_asked() -> None:
    """A proxy keeps its connection; the old upstream went on answering there, and the new one saw nothing."""
    body = {"model": "x", "messages": [{"role": "user", "content": "probe: answer"}]}
    with httpx.Client(trust_env=False, transport=httpx.HTTPTransport(retries=1)) as client:
        with upstream("127.0.0.1", 0) as first:
            assert client.post(f"{first.url}/v1/chat/completions", json=body).status_code == 200
        with upstream("127.0.0.1", int(first.url.rpartition(":")[2])) as second:
            assert client.post(f"{second.url}/v1/chat/completions", json=body).status_code == 200
            assert (len(first.asked), len(second.asked)) == (1, 1)
