"""Loading and unloading adapters on a running vLLM. The engine's own endpoints; no gateway ever lets a client reach them."""

from __future__ import annotations

import time

import httpx

LOOK_SECONDS = 0.1
REQUESTS = ("vllm:num_requests_running", "vllm:num_requests_waiting{")


class AdapterNotLoaded(Exception):
    """The engine answers, but cannot serve the adapter."""


def load_adapter(engine_url: str, name: str, *, timeout: float = 120) -> None:
    """Ask for one token as `name`, so that the engine's resolver finds the adapter in its folder and loads it.

    Raises AdapterNotLoaded, httpx.TransportError.
    """
    body = {"model": name, "prompt": "a", "max_tokens": 1, "temperature": 0}
    answer = httpx.post(f"{engine_url}/v1/completions", json=body, timeout=timeout)
    if answer.status_code != 200:
        raise AdapterNotLoaded(
            f"the engine at {engine_url} answered {answer.status_code} for the adapter {name}: {answer.text[:300]}; see `liftlock logs vllm`"
        )


def unload_adapter(engine_url: str, name: str) -> None:
    """Free the adapter's slot; one that is not loaded is no error."""
    answer = httpx.post(f"{engine_url}/v1/unload_lora_adapter", json={"lora_name": name}, timeout=30)
    if answer.status_code not in (200, 400, 404):
        answer.raise_for_status()


def under_way(engine_url: str) -> int:
    """Requests that the engine runs or keeps waiting, by its own /metrics; 0 where it does not answer."""
    try:
        page = httpx.get(f"{engine_url}/metrics", timeout=5)
    except httpx.TransportError:
        return 0
    counted = [line for line in page.text.splitlines() if line.startswith(REQUESTS)]
    return int(sum(float(line.rpartition(" ")[2]) for line in counted))


def await_idle(engine_url: str, deadline: float) -> None:
    """Until it has no request any more, at the latest until `deadline` (time.monotonic)."""
    while under_way(engine_url) and time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)
