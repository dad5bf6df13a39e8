"""Names and tags of a flow run, read back from a real Prefect."""

from __future__ import annotations

from tests.fix_prefect import PrefectServer

FLOW = """
from prefect import flow, runtime
from tasks.labels import label_flow_run

label_flow_run("outside", "ignored:yes")

@flow
def release():
    label_flow_run("tickets run-1", "model:tickets", "run:run-1")
    label_flow_run("tickets run-1", "verdict:champion", "model:tickets")
    print("id", runtime.flow_run.id, flush=True)

release()
"""


def test_labels_are_added_and_the_run_is_named(prefect_server: PrefectServer) -> None:
    said, _ = prefect_server.python(FLOW).communicate(timeout=120)
    ids = [line.split()[1] for line in said.splitlines() if line.startswith("id ")]
    assert ids, said
    run = prefect_server.get(f"/flow_runs/{ids[0]}")
    assert (run["name"], run["tags"]) == ("tickets run-1", ["model:tickets", "run:run-1", "verdict:champion"])
    assert prefect_server.post("/flow_runs/filter", {"flow_runs": {"tags": {"all_": ["ignored:yes"]}}}) == []
