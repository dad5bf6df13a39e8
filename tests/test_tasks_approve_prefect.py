"""A flow that waits for people, on a real Prefect server and by Prefect's own engine: it suspends, and goes on when they said yes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from typing import Any

from prefect.settings import PREFECT_API_URL, temporary_settings

from tasks.approve import Approvals, resume
from tasks.promotion import journal
from tasks.promotion.database import connect, locked
from tasks.promotion.ledger import Line, lines
from tests.fix_prefect import ROOT, PrefectServer


def start(server: PrefectServer, parameters: Mapping[str, Any]) -> str:
    """A flow run of a deployment of its own; its id."""
    flow = server.post("/flows/", {"name": "approved"})
    deployment = server.post("/deployments/", {
        "name": "test", "flow_id": flow["id"], "entrypoint": "tests.flow_approved.approved", "path": str(ROOT),
        "parameter_openapi_schema": {"type": "object", "properties": {}},
    })  # fmt: skip
    run = server.post(f"/deployments/{deployment['id']}/create_flow_run", {"parameters": dict(parameters)})
    return str(run["id"])


def execute(server: PrefectServer, run: str) -> str:
    """As a worker would; the name of the state that it ends in. The process is gone then."""
    environment = {**server.environment, "PREFECT__FLOW_RUN_ID": run}
    done = subprocess.run(
        [sys.executable, "-m", "prefect.engine", run], env=environment, cwd=ROOT, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    state = server.get(f"/flow_runs/{run}")["state"]
    return str(state["name"]) if state else done.stderr


def note(dsn: str, line: Line) -> Line:
    with locked(partial(connect, dsn), line.model) as connection:
        return journal.note(connection, line)


def test_the_flow_suspends_and_goes_on_after_the_form_and_the_command(
    database: str, prefect_server: PrefectServer
) -> None:
    """The requester's answer does not count, the form's yes is one, the command's the second."""
    run = start(prefect_server, {"dsn": database, "api": prefect_server.api, "needed": 2})
    assert execute(prefect_server, run) == "Suspended"
    for by in ("ada", "bo"):
        form = {"by": by, "approve": True, "comment": "in Prefect's page"}
        assert prefect_server.post(f"/flow_runs/{run}/resume", {"run_input": form})["status"] == "ACCEPT"
        assert execute(prefect_server, run) == "Suspended"
    wrong = prefect_server.post(f"/flow_runs/{run}/resume", {"run_input": {"by": 3}})
    assert wrong["status"] == "REJECT"
    found = Approvals(partial(connect, database), partial(note, database))
    request = found.answer(found.find(run), "cy", True, "at the command line")
    assert request.granted
    with temporary_settings({PREFECT_API_URL: prefect_server.api}):
        assert resume(request, "cy", "at the command line")
    assert execute(prefect_server, run) == "Completed"
    with connect(database) as connection:
        story = [(line.kind, line.actor) for line in lines(connection)]
    assert story == [("approval_requested", "ada"), ("approved", "bo"), ("approved", "cy")]
