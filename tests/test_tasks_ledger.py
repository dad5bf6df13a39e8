"""The one function that moves an alias, on a real MLflow and a real Postgres: compare, crash, and two at once."""

import getpass
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, cast

import psycopg
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from tasks.ledger import Alias, AliasMoved, Move, alias_version, move_alias, moves

EVIDENCE = {"adapter_sha256": "a" * 64, "reason": 'said "yes" – 100 %'}


def move(dsn: str, model: str, version: str, expected: str | None, alias: Alias = "champion") -> None:
    move_alias(dsn, model, alias, version, expected=expected, reason=f"to {version}", evidence=EVIDENCE)


def lines(dsn: str, model: str) -> list[tuple[str, str | None, str]]:
    return [(one.alias, one.from_version, one.to_version) for one in moves(dsn, model)]


def test_a_move_is_seen_in_mlflow_and_written_down(database: str, mlflow_client: MlflowClient, registered: str) -> None:
    assert alias_version(mlflow_client, registered, "champion") is None
    move(database, registered, "1", None)
    move(database, registered, "2", "1")
    assert alias_version(mlflow_client, registered, "champion") == "2"
    actor = getpass.getuser()
    assert moves(database, registered) == [
        Move(registered, "champion", None, "1", actor, "to 1", EVIDENCE),
        Move(registered, "champion", "1", "2", actor, "to 2", EVIDENCE),
    ]


def test_aliases_and_models_have_ledgers_of_their_own(
    database: str, mlflow_client: MlflowClient, registered: str
) -> None:
    move(database, registered, "1", None, "candidate")
    move(database, registered, "1", None, "staging")
    move(database, registered, "2", "1", "candidate")
    assert lines(database, registered) == [("candidate", None, "1"), ("staging", None, "1"), ("candidate", "1", "2")]
    assert moves(database, "another") == []
    assert mlflow_client.get_registered_model(registered).aliases == {"candidate": "2", "staging": "1"}


def test_a_move_that_is_made_is_not_made_again(database: str, mlflow_client: MlflowClient, registered: str) -> None:
    for expected in (None, "1", None, "3"):
        move(database, registered, "1", expected)
    assert lines(database, registered) == [("champion", None, "1")]
    assert alias_version(mlflow_client, registered, "champion") == "1"


def test_a_move_back_and_forth_is_three_lines(database: str, mlflow_client: MlflowClient, registered: str) -> None:
    for version, expected in (("1", None), ("2", "1"), ("1", "2")):
        move(database, registered, version, expected)
    assert lines(database, registered) == [("champion", None, "1"), ("champion", "1", "2"), ("champion", "2", "1")]
    assert alias_version(mlflow_client, registered, "champion") == "1"


@pytest.mark.parametrize("expected", [None, "2"])
def test_an_alias_that_somebody_moved_is_left_where_it_is(
    database: str, mlflow_client: MlflowClient, registered: str, expected: str | None
) -> None:
    move(database, registered, "1", None)
    with pytest.raises(
        AliasMoved, match=f"@champion names version 1, expected {expected or 'none'}: somebody moved it"
    ):
        move(database, registered, "3", expected)
    assert alias_version(mlflow_client, registered, "champion") == "1"
    assert lines(database, registered) == [("champion", None, "1")]


def test_an_alias_that_somebody_removed_is_not_set_again(
    database: str, mlflow_client: MlflowClient, registered: str
) -> None:
    move(database, registered, "1", None)
    mlflow_client.delete_registered_model_alias(registered, "champion")
    with pytest.raises(AliasMoved, match="names version none, expected 1"):
        move(database, registered, "2", "1")
    assert alias_version(mlflow_client, registered, "champion") is None


@pytest.mark.parametrize("alias", ["latest", "v3", "production", "CHAMPION", ""])
def test_another_alias_is_refused_before_anything_is_touched(
    database: str, mlflow_client: MlflowClient, registered: str, alias: str
) -> None:
    with pytest.raises(ValueError, match=r"use one of candidate, staging, champion"):
        move(database, registered, "4", None, cast(Alias, alias))
    assert mlflow_client.get_registered_model(registered).aliases == {}
    assert moves(database, registered) == []


def test_a_version_that_does_not_exist_leaves_no_line(
    database: str, mlflow_client: MlflowClient, registered: str
) -> None:
    with pytest.raises(MlflowException, match="not found"):
        move(database, registered, "99", None)
    assert moves(database, registered) == []
    assert alias_version(mlflow_client, registered, "champion") is None


def test_a_model_that_does_not_exist_has_no_alias(database: str, mlflow_client: MlflowClient) -> None:
    assert alias_version(mlflow_client, "nobody", "champion") is None
    with pytest.raises(MlflowException, match="nobody not found"):
        move(database, "nobody", "1", None)
    assert moves(database, "nobody") == []


@pytest.mark.parametrize("expected", ["1", "2"])
def test_the_line_that_a_crash_left_out_is_added_by_the_next_run(
    database: str, mlflow_client: MlflowClient, registered: str, expected: str
) -> None:
    """The next run may have seen the alias in place (2) or remember where it was (1)."""
    move(database, registered, "1", None)
    mlflow_client.set_registered_model_alias(registered, "champion", "2")  # and there the process died
    move(database, registered, "2", expected)
    move(database, registered, "2", expected)
    assert lines(database, registered) == [("champion", None, "1"), ("champion", "1", "2")]


@contextmanager
def ledger_held(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    """Who moves an alias meanwhile waits between setting it and adding its line."""
    moves(dsn, "")  # makes the table
    with psycopg.connect(dsn) as holder, psycopg.connect(dsn, autocommit=True) as watcher:
        holder.execute("LOCK TABLE ledger IN ACCESS EXCLUSIVE MODE")
        yield watcher
        holder.rollback()


def await_waiting(watcher: psycopg.Connection[Any], kind: str) -> int:
    """The process id of the Postgres session that waits for a lock of that kind."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        row = watcher.execute("SELECT pid FROM pg_locks WHERE NOT granted AND locktype = %s", [kind]).fetchone()
        if row:
            return int(row[0])
        time.sleep(0.02)
    raise AssertionError(f"nobody waits for a {kind} lock")


def test_a_lost_connection_says_that_nothing_is_done(
    database: str, mlflow_client: MlflowClient, registered: str
) -> None:
    with ThreadPoolExecutor(1) as pool:
        with ledger_held(database) as watcher:
            run = pool.submit(move, database, registered, "1", None)
            watcher.execute("SELECT pg_terminate_backend(%s)", [await_waiting(watcher, "relation")])
            with pytest.raises(psycopg.OperationalError):
                run.result()
        assert alias_version(mlflow_client, registered, "champion") == "1"
        assert moves(database, registered) == []
        move(database, registered, "1", alias_version(mlflow_client, registered, "champion"))
    assert lines(database, registered) == [("champion", None, "1")]


def test_the_second_promoter_waits_for_the_first(database: str, mlflow_client: MlflowClient, registered: str) -> None:
    with ThreadPoolExecutor(2) as pool:
        with ledger_held(database) as watcher:
            first = pool.submit(move, database, registered, "1", None)
            await_waiting(watcher, "relation")
            second = pool.submit(move, database, registered, "2", None)
            await_waiting(watcher, "advisory")
        first.result()
        with pytest.raises(AliasMoved, match="names version 1, expected none"):
            second.result()
    assert alias_version(mlflow_client, registered, "champion") == "1"
    assert lines(database, registered) == [("champion", None, "1")]


def test_another_model_does_not_wait(database: str, mlflow_client: MlflowClient, registered: str) -> None:
    key = "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))"
    with psycopg.connect(database) as holder:
        holder.execute(key, ["liftlock/another"])
        move(database, registered, "1", None)
    assert lines(database, registered) == [("champion", None, "1")]


def test_of_many_first_promoters_one_wins(database: str, mlflow_client: MlflowClient, registered: str) -> None:
    """On a database that has no ledger yet: making it is part of the race."""
    start = threading.Barrier(8)

    def promote(version: str) -> str:
        start.wait()
        move(database, registered, version, None)
        return version

    with ThreadPoolExecutor(8) as pool:
        runs: list[Future[str]] = [pool.submit(promote, version) for version in "12341234"]
    errors = [run.exception() for run in runs]
    assert {type(error) for error in errors if error} == {AliasMoved}
    winner = alias_version(mlflow_client, registered, "champion")
    assert {run.result() for run in runs if not run.exception()} == {winner}
    assert lines(database, registered) == [("champion", None, winner)]
