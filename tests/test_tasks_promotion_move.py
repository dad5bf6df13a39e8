"""The one function that moves an alias, on a real MLflow and a real Postgres: compare, crash at every boundary, failing calls."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import combinations
from typing import Any

import psycopg
import pytest
from mlflow import MlflowClient

from tasks.promotion import journal
from tasks.promotion.database import PromotionBusy, connect, locked
from tasks.promotion.events import EventNotSent
from tasks.promotion.evidence import EvidenceRefused
from tasks.promotion.ledger import verify
from tasks.promotion.move import AliasMoved
from tasks.promotion.registry import SETTLED_SECONDS, RegistryRefused, RegistryUnreachable
from tests.fix_promotion import Calls, Promotion, killed

SHORT = 1.0  # seconds that the next one waits for a call that may be under way; SETTLED_SECONDS where it counts


def faults(promotion: Promotion) -> list[Any]:
    with connect(promotion.dsn) as connection:
        return verify(connection)[1]


def test_a_move_is_seen_in_mlflow_written_down_and_told(promotion: Promotion) -> None:
    assert promotion.alias() is None
    promotion.move("1", None)
    promotion.move("2", "1")
    assert promotion.alias() == "2"
    assert promotion.story() == [("champion", None, "1"), ("champion", "1", "2")]
    assert promotion.told == promotion.lines()
    last = promotion.lines()[-1]
    assert (last.actor, last.reason, last.kind, last.evidence["note"]) == ("ada", "to 2", "move", 'said "yes" – 100 %')
    assert faults(promotion) == []


def test_aliases_have_positions_of_their_own(promotion: Promotion, mlflow_client: MlflowClient) -> None:
    promotion.move("1", None, "candidate")
    promotion.move("1", None, "staging")
    promotion.move("2", "1", "candidate")
    assert promotion.story() == [("candidate", None, "1"), ("staging", None, "1"), ("candidate", "1", "2")]
    assert mlflow_client.get_registered_model(promotion.model).aliases == {"candidate": "2", "staging": "1"}


def test_a_move_that_is_made_is_not_made_again(promotion: Promotion) -> None:
    lines = [promotion.move("1", expected) for expected in (None, "1", None, "3")]
    assert [line is None for line in lines] == [False, True, True, True]
    assert promotion.story() == [("champion", None, "1")]


@pytest.mark.parametrize("expected", [None, "2"])
def test_an_alias_that_somebody_moved_is_left_where_it_is(promotion: Promotion, expected: str | None) -> None:
    promotion.move("1", None)
    with pytest.raises(AliasMoved, match=f"@champion names version 1, expected {expected or 'none'}: somebody moved"):
        promotion.move("3", expected)
    assert (promotion.alias(), promotion.story()) == ("1", [("champion", None, "1")])


def test_an_alias_that_somebody_removed_is_not_set_again(promotion: Promotion, mlflow_client: MlflowClient) -> None:
    promotion.move("1", None)
    mlflow_client.delete_registered_model_alias(promotion.model, "champion")
    with pytest.raises(AliasMoved, match="names version none, expected 1"):
        promotion.move("2", "1")
    assert promotion.alias() is None


@pytest.mark.parametrize("alias", ["latest", "v3", "production", "CHAMPION", ""])
def test_another_alias_is_refused_before_anything_is_touched(promotion: Promotion, alias: str) -> None:
    with pytest.raises(ValueError, match="use one of candidate, staging, champion"):
        promotion.move("4", None, alias)
    assert promotion.lines() == []


def test_a_version_or_model_that_does_not_exist_leaves_no_line(promotion: Promotion) -> None:
    with pytest.raises(RegistryRefused, match="RESOURCE_DOES_NOT_EXIST"):
        promotion.move("99", None)
    with pytest.raises(RegistryRefused, match="nobody"):
        promotion.promoter.move(replace(promotion.wanted("1", None), model="nobody"))
    assert (promotion.alias(), promotion.lines()) == (None, [])
    promotion.move("1", None)  # the refused move left nothing to wait for
    assert promotion.story() == [("champion", None, "1")]


def test_without_evidence_nothing_is_moved(promotion: Promotion) -> None:
    def refuse(*_: Any) -> Any:
        raise EvidenceRefused("adapter_sha256 missing")

    with pytest.raises(EvidenceRefused):
        replace(promotion.promoter, verify=refuse).move(promotion.wanted("1", None))
    assert (promotion.alias(), promotion.lines()) == (None, [])


def boundaries(promotion: Promotion) -> list[str]:
    """The external calls of one move, as the code makes them."""
    calls = Calls()
    promotion.counted(calls).move(promotion.wanted("2", "1"))
    assert promotion.alias() == "2"
    promotion.move("1", "2")
    return calls.seen


def test_killed_at_any_boundary_the_same_command_comes_to_the_same_end(promotion: Promotion) -> None:
    """SIGKILL before and after every single call to Postgres, MLflow and Prefect; the number of calls is found by running."""
    promotion.move("1", None)
    names = boundaries(promotion)
    assert {"connect", "mlflow alias", "mlflow set_alias", "prefect", "COMMIT"} <= set(names)
    slowest = 0.0
    for number in range(2 * len(names)):
        before = len(promotion.lines())

        def die(at: int, number: int = number) -> None:
            if at == number:
                os.kill(os.getpid(), signal.SIGKILL)

        calls = Calls(at=die)
        assert killed(
            lambda calls=calls: replace(promotion.counted(calls), settled=SHORT).move(promotion.wanted("2", "1"))
        )  # type: ignore[misc]
        began = time.monotonic()
        promotion.move("2", "1")
        slowest = max(slowest, time.monotonic() - began)
        assert promotion.alias() == "2", names[number // 2]
        with connect(promotion.dsn) as connection:
            assert journal.untold(connection) == []  # told in the child, or by the same command again
            assert journal.open_intents(connection, promotion.model) == []
        assert promotion.story()[before:] == [("champion", "1", "2")], names[number // 2]
        promotion.move("1", "2")
    assert faults(promotion) == []
    assert slowest + SETTLED_SECONDS - SHORT < 10, "going on takes at most ten seconds"


def test_no_failing_call_and_no_pair_of_them_ends_in_a_silent_success(promotion: Promotion) -> None:
    """Each call failing as its service does: a move that does not say that it is done has not promoted when it is looked
    at again, and one that says so has.
    """
    promotion.move("1", None)
    count = len(boundaries(promotion))
    cases = [*((one,) for one in range(count)), *combinations(range(count), 2)]
    for case in cases:
        before = len(promotion.lines())
        try:
            said = promotion.counted(Calls(failing=case)).move(promotion.wanted("2", "1"))
        except (psycopg.OperationalError, RegistryUnreachable):
            said = None
        was_set = promotion.alias() == "2"
        if said is not None:
            assert was_set
            assert promotion.story()[before:] == [("champion", "1", "2")], case
        elif not was_set:
            _expire(promotion)  # nothing of this move is under way any more
        promotion.promoter.finish(promotion.model)
        assert promotion.story()[before:] == ([("champion", "1", "2")] if was_set else []), case
        if was_set:
            promotion.move("1", "2")
    assert faults(promotion) == []


def _expire(promotion: Promotion) -> None:
    """The wait for a call that may still be under way, which the crash test waits out, is cut short here."""
    with connect(promotion.dsn) as connection:
        connection.execute("UPDATE alias_journal SET deadline = clock_timestamp() WHERE state = 'open'")


def test_a_call_that_was_given_up_and_comes_late_is_waited_for(promotion: Promotion) -> None:
    promotion.move("1", None)
    calls = Calls(failing=[boundaries(promotion).index("mlflow set_alias")])
    with pytest.raises(RegistryUnreachable):
        promotion.counted(calls).move(promotion.wanted("2", "1"))
    late = threading.Timer(1.5, promotion.promoter.registry.set_alias, [promotion.model, "champion", "2"])
    late.start()
    with pytest.raises(AliasMoved, match="names version 2, expected 1"):
        promotion.move("3", "1")
    late.join()
    assert promotion.story()[-1] == ("champion", "1", "2")


def test_a_lost_connection_aborts_the_move(promotion: Promotion) -> None:
    """The server ends the session that holds the lock, just before MLflow is asked: no line, and the next one finds out."""
    promotion.move("1", None)

    def cut(*_: Any) -> dict[str, str]:
        with connect(promotion.dsn) as other:
            other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted AND database = "
                "(SELECT oid FROM pg_database WHERE datname = current_database())"
            )
        return {}

    with pytest.raises(psycopg.OperationalError):
        replace(promotion.promoter, verify=cut).move(promotion.wanted("2", "1"))
    assert (promotion.alias(), promotion.story()) == ("1", [("champion", None, "1")])
    promotion.move("2", "1")
    assert promotion.story() == [("champion", None, "1"), ("champion", "1", "2")]


def test_who_waits_too_long_for_another_is_told_so(promotion: Promotion) -> None:
    busy = pytest.raises(PromotionBusy, match="has held the lock for 1 s")
    lock, connecting = promotion.model, promotion.promoter.connect
    with locked(connecting, lock), busy, locked(connecting, lock, seconds=1):
        pass
    promotion.move("1", None)
    assert promotion.alias() == "1"


def test_an_event_that_prefect_does_not_take_is_sent_with_the_next(promotion: Promotion) -> None:
    def refuse(_: Any) -> None:
        raise EventNotSent("down")

    replace(promotion.promoter, tell=refuse).move(promotion.wanted("1", None))
    assert (promotion.alias(), promotion.told) == ("1", [])
    promotion.promoter.finish(promotion.model)
    promotion.promoter.finish(promotion.model)
    assert promotion.told == promotion.lines()


def test_of_many_first_promoters_one_wins(promotion: Promotion) -> None:
    """On a database that has no tables yet: making them is part of the race."""
    start = threading.Barrier(8)

    def promote(version: str) -> str:
        start.wait()
        promotion.move(version, None)
        return version

    with ThreadPoolExecutor(8) as pool:
        runs = [pool.submit(promote, version) for version in "12341234"]
    errors = [run.exception() for run in runs]
    assert {type(error) for error in errors if error} == {AliasMoved}
    winner = promotion.alias()
    assert {run.result() for run in runs if not run.exception()} == {winner}
    assert promotion.story() == [("champion", None, winner)]


def test_a_version_that_was_built_anew_gets_a_line_with_its_new_digest(promotion: Promotion) -> None:
    """The alias stays where it is; the ledger must name the bytes that are there now."""
    first = promotion.wanted("1", None, "staging")
    rebuilt = replace(first, expected="1", evidence={**first.evidence, "modelcar": "x@sha256:new"})
    promotion.promoter.move(first)
    assert promotion.promoter.move(rebuilt) is not None
    assert promotion.promoter.move(rebuilt) is None
    assert promotion.story() == [("staging", None, "1"), ("staging", "1", "1")]
    assert promotion.lines()[-1].evidence["modelcar"] == "x@sha256:new"
    assert faults(promotion) == []
