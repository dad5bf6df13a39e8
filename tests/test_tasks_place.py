"""Where a version is served: the place of an engine of its own, and the champion's engine, by what is kept in the state folder."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from serving.gateway.model import Split
from serving.gateway.state import Gateway
from tasks.place import Place, covered, current_place, own_engine, served_by
from tasks.settings import Settings
from tasks.spec import load_release
from tasks.stack.engine import Engine, EngineBusy, write_engine
from tasks.stack.own_engines import OwnEngine, part_of, read_own, write_own
from tasks.strategies import placed
from tests.fix_outcome import fit
from tests.fix_stack import SUITE

FIRST = Engine("/models/small")
WIDE = replace(FIRST, max_model_len=8192)
PORTS = {"postgres": 1, "mlflow": 2, "prefect": 3, "vllm": 4, "envoy": 5, "envoy-admin": 6, "vllm-tickets-1": 7, "vllm-tickets-2": 8}  # fmt: skip


def at(place: int) -> str:
    return f"http://127.0.0.1:{PORTS[part_of('tickets', place)]}"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "ports.json").write_text(json.dumps(PORTS))
    write_engine(tmp_path, FIRST)
    (tmp_path / "gateway").mkdir()
    return Settings(state=tmp_path, postgres_dsn="postgresql://u@127.0.0.1:1", vllm_url=None)  # type: ignore[arg-type]


def split(settings: Settings, **fields: str | None) -> None:
    one = Split("tickets", **{"stable": "tickets-a", **fields})  # type: ignore[arg-type]
    (settings.state / "gateway" / "splits.json").write_text(json.dumps([one.__dict__]))


@pytest.mark.parametrize(("stable_at", "place"), [(None, 1), (1, 2), (2, 1)])
def test_a_candidate_gets_the_place_that_stable_has_not(settings: Settings, stable_at: int | None, place: int) -> None:
    split(settings, stable_engine=at(stable_at) if stable_at else None)
    assert own_engine(settings, "tickets", WIDE, "tickets-b") == OwnEngine("tickets", place, WIDE)


def test_a_killed_promotion_goes_on_with_the_engine_that_serves_already(settings: Settings) -> None:
    split(settings, stable="tickets-b", stable_engine=at(2))
    assert own_engine(settings, "tickets", WIDE, "tickets-b").place == 2


def test_the_champions_engine_is_its_own_where_it_has_one(settings: Settings) -> None:
    assert current_place(settings, "tickets") == Place("http://127.0.0.1:4", Path("/models/small"))
    own = OwnEngine("tickets", 1, WIDE)
    write_own(settings.state, [own])
    split(settings, stable_engine=at(1))
    found = current_place(settings, "tickets")
    assert found == Place(at(1), Path("/models/small"), own)
    assert (found.part, covered(settings, found, WIDE)) == ("vllm-tickets-1", True)
    assert served_by(settings, found) == {"tickets-a"}
    assert not covered(settings, current_place(settings, "other"), WIDE)


def test_an_engine_of_somebody_else_has_no_second_one(settings: Settings) -> None:
    elsewhere = settings.model_copy(update={"vllm_url": "http://127.0.0.1:9"})
    with pytest.raises(EngineBusy, match="strategy pool starts a second engine"):
        own_engine(elsewhere, "tickets", WIDE)
    assert covered(elsewhere, current_place(elsewhere, "tickets"), WIDE)


def test_own_engines_are_kept_as_they_are(tmp_path: Path) -> None:
    engines = (OwnEngine("a", 2, WIDE), OwnEngine("b", 1, FIRST))
    write_own(tmp_path, [engines[1], engines[0]])
    assert read_own(tmp_path) == engines


def test_splits_follow_an_engine_to_its_new_address(settings: Settings) -> None:
    split(settings, stable_engine=at(1))
    gateway = Gateway(settings.state / "gateway", "", "http://127.0.0.1:4", "small")
    gateway.readdress({at(1): "http://127.0.0.1:70", at(2): at(2)})
    assert gateway.splits() == {"tickets": Split("tickets", "tickets-a", stable_engine="http://127.0.0.1:70")}


@pytest.mark.parametrize(("stable_at", "said"), [(None, "Run `liftlock down`"), (1, "Release a new version")])
def test_a_version_is_not_brought_to_another_engine_against_itself(
    settings: Settings, stable_at: int | None, said: str
) -> None:
    """It has all the traffic, so a rollout would end at once, with an engine that gives less than the release promises."""
    spec = load_release(SUITE / "release.yaml", ()).model_copy(update={"name": "tickets"})
    if stable_at:
        write_own(settings.state, [OwnEngine("tickets", 1, FIRST)])
    split(settings, stable_engine=at(stable_at) if stable_at else None)
    with pytest.raises(EngineBusy, match=said):
        placed(settings, fit(), spec, "tickets-a")
