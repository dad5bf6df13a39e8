"""A flow of one approval, run by Prefect's own engine in tests/test_tasks_approve_prefect.py."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial

from prefect import flow, runtime

from tasks.approve import Approvals, _suspend
from tasks.artifacts import ModelVersion
from tasks.promotion.approval import request_line
from tasks.promotion.database import connect
from tasks.promotion.events import PrefectEvents
from tasks.promotion.move import Promoter
from tasks.promotion.registry import MlflowRegistry


@flow(name="approved", persist_result=True)
def approved(dsn: str, api: str, needed: int) -> None:
    promoter = Promoter(
        partial(connect, dsn), MlflowRegistry("http://127.0.0.1:9"), lambda *_: {}, PrefectEvents(api)
    )  # MLflow is not asked
    evidence = {"needed": str(needed), "run": "run-1", "version_sha256": "d", "flow_run": str(runtime.flow_run.id)}
    asked = request_line("tickets", "champion", "2", "ada", datetime.now(UTC), 72, evidence)
    version = ModelVersion("tickets", "2", "r", "s", "d")
    Approvals(promoter.connect, promoter.note).require(version, "champion", asked, 72, _suspend)
