"""`liftlock approvals`, `approve` and `deploy` as a user runs them, with servers that the settings name."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import partial

from tasks.approve import Approvals
from tasks.promotion import journal
from tasks.promotion.approval import request_line
from tasks.promotion.database import connect, locked
from tasks.promotion.ledger import Line
from tests.fix_surroundings import Surroundings


def ask(dsn: str, needed: int) -> None:
    """As a release of ada's does that came to an alias with approval."""
    evidence = {"needed": str(needed), "run": "20261128-1", "version_sha256": "d"}
    with locked(partial(connect, dsn), "tickets") as connection:
        journal.note(connection, request_line("tickets", "champion", "2", "ada", datetime.now(UTC), 72, evidence))


def test_what_waits_is_shown_and_answered_with_the_exit_codes_of_the_page(surroundings: Surroundings) -> None:
    ask(surroundings.dsn, 2)
    shown = surroundings.run("approvals")
    assert (shown.returncode, "tickets version 2 to champion, asked by ada; 0 of 2 approved" in shown.stdout) == (
        0,
        True,
    )
    own = surroundings.run("approve", "tickets", "--by", "ada")
    assert (own.returncode, "ada asked for it and cannot answer it" in own.stderr) == (3, True)
    first = surroundings.run("approve", "20261128-1", "--by", "bo", "--comment", "read the report")
    assert (first.returncode, first.stdout) == (4, "tickets version 2 to champion: 1 of 2 approved\n")
    second = surroundings.run("approve", "tickets", "--by", "cy", "--json")
    assert second.returncode == 0, second.stderr
    assert json.loads(second.stdout) == {
        "model": "tickets", "alias": "champion", "version": "2", "by": ["bo", "cy"], "needed": 2, "denied": False, "resumed": False,
    }  # fmt: skip
    gone = surroundings.run("approve", "tickets", "--by", "di")
    assert (gone.returncode, "0 requests wait under that name; waiting: none" in gone.stderr) == (2, True)
    assert "Traceback" not in own.stderr + gone.stderr

    def note(line: Line) -> Line:
        raise AssertionError(line)

    request = Approvals(partial(connect, surroundings.dsn), note).of("tickets", "champion", "2")
    assert request is not None
    assert request.granted


def test_deploy_registers_everything_and_says_who_is_told(surroundings: Surroundings) -> None:
    done = surroundings.run("deploy", "--notify", "http://127.0.0.1:9/hook", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["notifications"] == [
        "liftlock: rejected",
        "liftlock: rolled back",
        "liftlock: drift",
    ]
    names = {one["name"] for one in surroundings.prefect.post("/deployments/filter", {})}
    assert {"local", "by-hand", "nightly", "candidate", "drift"} <= names
