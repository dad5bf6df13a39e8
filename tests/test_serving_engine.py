"""Loading and unloading an adapter on a running engine."""

import httpx
import pytest

from serving.engine import AdapterNotLoaded, load_adapter, unload_adapter
from tests.fix_engine import Behaviour, FakeEngine


def test_asking_for_an_adapter_loads_it(engine: FakeEngine) -> None:
    engine.models["tickets-1"] = Behaviour()  # in the folder that the engine resolves adapters from
    load_adapter(engine.url, "tickets-1")
    assert engine.requests == {"tickets-1": 1}


def test_an_adapter_that_the_engine_does_not_find_is_named(engine: FakeEngine) -> None:
    with pytest.raises(AdapterNotLoaded, match=r"answered 404 for the adapter tickets-1: .*does not exist"):
        load_adapter(engine.url, "tickets-1")


def test_an_engine_that_is_not_there_is_a_transport_error() -> None:
    with pytest.raises(httpx.TransportError):
        load_adapter("http://127.0.0.1:1", "tickets-1")


def test_unloading_frees_the_slot_and_is_idempotent(engine: FakeEngine) -> None:
    engine.models["tickets-1"] = Behaviour()
    unload_adapter(engine.url, "tickets-1")
    unload_adapter(engine.url, "tickets-1")
    assert engine.unloaded == ["tickets-1"]
    assert "tickets-1" not in engine.models
