"""The ledger: append-only by trigger, a chain that shows every change, and the way back through champions."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.promotion.database import connect
from tasks.promotion.journal import note
from tasks.promotion.ledger import GENESIS, Kind, Line, champions, lines, verify


def made(kind: Kind, before: str | None, after: str | None, alias: Any = "champion") -> Line:
    return Line(0, "", "tickets", alias, kind, before, after, "ada", "because", {"adapter_sha256": "ä" * 3}, "")


@pytest.fixture
def written(database: str) -> Any:
    """Five lines, and a connection that may do what only an owner of the table may."""
    with connect(database) as connection:
        for number in range(1, 6):
            note(connection, made("move", str(number - 1) if number > 1 else None, str(number)))
        yield connection


def test_a_lines_hash_is_of_its_columns_and_of_the_line_before(written: Any) -> None:
    """Computed here from the table by the documented rule."""
    rows = written.execute(
        "SELECT id, to_char(at, 'YYYY-MM-DD\"T\"HH24:MI:SS.US') || '+00:00', model, alias, kind, from_version, to_version, actor, "
        "reason, evidence, previous, hash FROM ledger ORDER BY id"
    ).fetchall()
    names = (
        "id",
        "at",
        "model",
        "alias",
        "kind",
        "from_version",
        "to_version",
        "actor",
        "reason",
        "evidence",
        "previous",
    )
    before = GENESIS
    for row in rows:
        assert row[10] == before
        text = json.dumps(
            dict(zip(names, row[:11], strict=True)), sort_keys=True, separators=(",", ":"), ensure_ascii=False
        )
        before = row[11]
        assert hashlib.sha256(text.encode()).hexdigest() == before
    assert verify(written) == (5, [])


@pytest.mark.parametrize(
    "change", ["UPDATE ledger SET reason = 'x'", "DELETE FROM ledger WHERE id = 3", "TRUNCATE ledger"]
)
def test_the_trigger_refuses_changes(written: Any, change: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
        written.execute(change)
    assert verify(written) == (5, [])


@pytest.mark.parametrize(
    ("change", "at", "said"),
    [
        ("UPDATE ledger SET to_version = '9' WHERE id = 2", 2, "content"),
        ("UPDATE ledger SET evidence = '{}' WHERE id = 5", 5, "content"),
        ("UPDATE ledger SET at = at + interval '1 s' WHERE id = 1", 1, "content"),
        ("DELETE FROM ledger WHERE id = 3", 4, "line 3 is missing"),
        ("DELETE FROM ledger WHERE id = 1", 2, "line 1 is missing"),
        ("DELETE FROM ledger WHERE id = 5", 5, "was written and is missing"),
        ("DELETE FROM ledger", 1, "was written and is missing"),
        ("UPDATE ledger SET hash = repeat('0', 64) WHERE id = 5", 5, "another hash than when it was written"),
    ],
)
def test_what_somebody_changes_past_the_trigger_is_found(written: Any, change: str, at: int, said: str) -> None:
    written.execute("ALTER TABLE ledger DISABLE TRIGGER USER")
    written.execute(change)
    found = verify(written)[1]
    assert any(fault.id == at and said in fault.said for fault in found), found


def test_a_witness_outside_of_postgres_finds_what_journal_and_ledger_lost_together(written: Any) -> None:
    last = lines(written)[-1]
    written.execute("ALTER TABLE ledger DISABLE TRIGGER USER")
    written.execute("DELETE FROM ledger WHERE id = 5")
    written.execute("DELETE FROM alias_journal WHERE ledger_id = 5")
    assert verify(written) == (4, [])
    assert [fault.id for fault in verify(written, {5: last.hash})[1]] == [5]


def test_champions_are_a_stack_that_a_rollback_takes_from() -> None:
    moved = [made("move", None, "1"), made("move", "1", "2"), made("move", "2", "3")]
    assert champions(moved) == ["1", "2", "3"]
    back = [*moved, made("rollback", "3", "2")]
    assert champions(back) == ["1", "2"]
    assert champions([*back, made("rollback", "2", "1")]) == ["1"]
    assert champions([*back, made("move", "2", "4"), made("move", None, "9", "staging")]) == ["1", "2", "4"]


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 5))))
def test_the_last_champion_is_where_the_last_line_went(steps: list[tuple[bool, int]]) -> None:
    story = [made("rollback" if back else "move", None, str(version)) for back, version in steps]
    assert champions(story)[-1:] == [str(version) for _, version in steps[-1:]]


def test_the_lines_of_the_first_version_are_taken_over(database: str) -> None:
    """Its table as version 0.1.0 made it."""
    with psycopg.connect(database, autocommit=True) as old:
        old.execute(
            "CREATE TABLE ledger (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at timestamptz NOT NULL DEFAULT now(), "
            "model text NOT NULL, alias text NOT NULL, from_version text, to_version text NOT NULL, actor text NOT NULL, "
            "reason text NOT NULL, evidence jsonb NOT NULL)"
        )
        old.execute(
            "INSERT INTO ledger (model, alias, to_version, actor, reason, evidence) VALUES ('m', 'champion', '4', 'ada', 'r', '{\"a\": \"b\"}')"
        )
    with connect(database) as connection:
        (line,) = lines(connection, "m")
        assert (line.alias, line.to_version, line.actor, line.evidence) == ("champion", "4", "ada", {"a": "b"})
        assert verify(connection) == (1, [])
    with connect(database) as again:
        assert len(lines(again)) == 1
