"""Many adapters on one engine: slots by fit, and only an adapter that answers as its release did gets clients."""

from pathlib import Path

import httpx
import pytest

from serving.gateway.envoy import VERSION_HEADER, Split
from serving.rollout.ask import ask
from serving.rollout.golden import record
from tasks.preflight import DoesNotFit
from tasks.serve import BasesDiffer, admit, base_of, engine_with, slots_of
from tasks.settings import Settings
from tasks.spec import Release
from tests.fix_engine import Behaviour, FakeEngine
from tests.fix_envoy import Envoy
from tests.fix_fit import write_model
from tests.fix_spec import SMALL, fill, load

PROMPTS = tuple(({"role": "user", "content": f"ticket {number}"},) for number in range(8))
ADAPTER, OTHER = "tickets-aaaa", "tickets-bbbb"


def test_an_adapter_that_answers_as_on_record_gets_its_model(envoy: Envoy, engine: FakeEngine, model: str) -> None:
    engine.models[ADAPTER] = Behaviour()
    golden = record(engine.url, ADAPTER, PROMPTS)
    state, said = admit(envoy.gateway, engine.url, model, ADAPTER, golden)
    assert (state, said) == ("served", "8 of 8 golden prompts are answered as on the release's record")
    assert ask(httpx.Client(), envoy.url, model, PROMPTS[0], VERSION_HEADER).served == ADAPTER


def test_another_adapter_under_its_name_is_unloaded_and_not_served(
    envoy: Envoy, engine: FakeEngine, model: str
) -> None:
    engine.models |= {ADAPTER: Behaviour(), OTHER: Behaviour()}
    golden = record(engine.url, OTHER, PROMPTS)
    state, said = admit(envoy.gateway, engine.url, model, ADAPTER, golden)
    assert state == "refused"
    assert said.startswith("0 of 8 golden prompts") and said.endswith("It is not served")
    assert engine.unloaded == [ADAPTER]
    assert model not in envoy.gateway.splits()


def test_one_with_clients_stays_and_is_told(envoy: Envoy, engine: FakeEngine, model: str) -> None:
    engine.models |= {ADAPTER: Behaviour(), OTHER: Behaviour()}
    envoy.gateway.set_stable(model, ADAPTER)
    state, said = admit(envoy.gateway, engine.url, model, ADAPTER, record(engine.url, OTHER, PROMPTS))
    assert state == "refused" and f"run `liftlock rollback {model}`" in said
    assert envoy.gateway.splits()[model] == Split(model, ADAPTER)
    assert engine.unloaded == []


def test_an_adapter_that_does_not_load_is_refused_and_one_without_a_record_served(
    envoy: Envoy, engine: FakeEngine, model: str
) -> None:
    engine.models[ADAPTER] = Behaviour(loadable=False)
    state, said = admit(envoy.gateway, engine.url, model, ADAPTER, ())
    assert state == "refused" and "answered 404 for the adapter tickets-aaaa" in said
    engine.models[ADAPTER] = Behaviour()
    assert admit(envoy.gateway, engine.url, model, ADAPTER, ())[0] == "no record"


def spec_of(folder: Path, base: str, serving: str = "{}") -> Release:
    if not (folder / "data").exists():
        fill(folder)
    return load(folder, SMALL.replace("some-model", base) + f"serving: {serving}\n")


def test_the_slots_are_as_many_as_adapters_and_a_candidate_where_they_fit(tmp_path: Path) -> None:
    base = write_model(tmp_path / "base")
    specs = [
        spec_of(tmp_path, str(base), "{max_model_len: 128, max_lora_rank: 8}"),
        spec_of(tmp_path, str(base), "{max_model_len: 256, max_lora_rank: 16, max_num_seqs: 8}"),
    ]
    assert base_of(specs, Settings(state=tmp_path, toolchain=tmp_path)) == base
    slots = slots_of(base, specs, None, 1.0, None)
    assert (slots.max_loras, slots.max_lora_rank) == (3, 16)
    engine = engine_with(base, specs, slots)
    assert (engine.max_model_len, engine.max_num_seqs, engine.max_loras, engine.max_lora_rank) == (256, 64, 3, 16)
    assert slots_of(base, specs, None, 1.0, 2).max_loras == 2
    with pytest.raises(DoesNotFit, match="not one slot of rank 16 fits"):
        engine_with(base, specs, slots_of(base, specs, None, 1e9, None))


def test_models_of_two_bases_need_two_engines(tmp_path: Path) -> None:
    bases = [write_model(tmp_path / name) for name in ("one", "two")]
    specs = [spec_of(tmp_path, str(base)) for base in bases]
    with pytest.raises(BasesDiffer, match="one engine serves one base model, and a-model has one, a-model has two"):
        base_of(specs, Settings(state=tmp_path, toolchain=tmp_path))
