"""approve: where release.yaml asks for it, a move waits until people said yes. The run that waits holds no process.

In a deployment the flow suspends, and Prefect's page shows a form. At the command line the command ends with exit code 4 and
the same command goes on once it is approved. Every word is in the ledger.
"""

from __future__ import annotations

import getpass
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID

from prefect import runtime
from prefect.client.orchestration import get_client
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from pydantic import Field

from tasks.artifacts import ModelVersion
from tasks.ledger import promoter
from tasks.promotion.approval import PEOPLE, Request, request_line, request_of, requests
from tasks.promotion.database import Connect
from tasks.promotion.ledger import Alias, Kind, Line, lines
from tasks.promotion.move import Promoter
from tasks.spec import ApprovalSpec


class ApprovalPending(Exception):
    """Nobody, or not everybody, has approved yet; nothing was moved."""


class ApprovalRefused(Exception):
    """Denied, expired, or given by who may not give it."""


class NoSuchRequest(LookupError):
    """No open request has that run, flow run or model."""


class Answer(RunInput):
    """The form in Prefect's page."""

    by: str = Field(description="Your name. Who asked for the move cannot approve it.", min_length=1)
    approve: bool = Field(True, description="No ends the run, and the version stays where it is.")
    comment: str = Field("", description="Written into the ledger.")


Ask = Callable[[str, int], Answer]  # a key that stays the same in every run of the flow, and seconds


@dataclass(frozen=True)
class Approvals:
    """The requests of one ledger. `note` writes a line; `now` is the clock."""

    connect: Connect
    note: Callable[[Line], Line]
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    def of(self, model: str, alias: Alias, version: str) -> Request | None:
        with self.connect() as connection:
            return request_of(lines(connection, model), model, alias, version)

    def open(self) -> list[Request]:
        """Those that wait, oldest first."""
        with self.connect() as connection:
            return [one for one in requests(lines(connection)) if one.denied is None and not one.granted]

    def find(self, what: str) -> Request:
        """By run, flow run or model. Raises NoSuchRequest."""
        found = [one for one in self.open() if one.names(what)]
        if len(found) != 1:
            known = "; ".join(
                f"{one.line.evidence['run']} ({one.line.model} to {one.line.alias})" for one in self.open()
            )
            raise NoSuchRequest(f"{what}: {len(found)} requests wait under that name; waiting: {known or 'none'}")
        return found[0]

    def answer(self, request: Request, by: str, approve: bool, comment: str = "") -> Request:
        """One person's word; saying it twice counts once. Raises ApprovalRefused."""
        line = request.line
        what = f"{line.model} version {line.to_version} to {line.alias}"
        if by == line.actor:
            raise ApprovalRefused(f"{what}: {by} asked for it and cannot answer it, required somebody else")
        if request.expired(self.now()):
            raise self._expire(request)
        if by not in request.by or not approve:
            kind: Kind = "approved" if approve else "denied"
            self.note(_line(request, kind, by, comment or ("approved" if approve else "denied")))
        found = self.of(line.model, line.alias, str(line.to_version))
        assert found is not None  # noqa: S101 - its line was just written, or was there
        return found

    def _expire(self, request: Request) -> ApprovalRefused:
        line = request.line
        self.note(
            _line(request, "approval_expired", "liftlock", f"{len(request.by)} of {request.needed} approved in time")
        )
        return ApprovalRefused(
            f"{line.model} version {line.to_version} to {line.alias}: {len(request.by)} of {request.needed} approved until "
            f"{line.evidence['expires']}; run it again to ask anew"
        )

    def expire(self) -> list[Request]:
        """End what waited too long; the reconciler calls it each minute."""
        late = [one for one in self.open() if one.expired(self.now())]
        for one in late:
            self._expire(one)
        return late

    def require(self, version: ModelVersion, alias: Alias, asked: Line, hours: float, ask: Ask) -> None:
        """Returns once enough people approved. Raises ApprovalRefused, ApprovalPending, and what `ask` raises to wait."""
        for turn in range(1000):
            request = self.of(version.name, alias, version.version) or self._request(version, alias, asked)
            if request.denied is not None:
                said = request.denied
                raise ApprovalRefused(
                    f"{version.name} version {version.version} to {alias}: denied by {said.actor}: {said.reason}; release another version"
                )
            if request.line.evidence["version_sha256"] != version.sha256:
                raise ApprovalRefused(
                    f"{version.name} version {version.version}: its evidence changed since it was asked for"
                )
            if len(request.by) >= int(asked.evidence["needed"]):
                return
            if request.expired(self.now()):
                raise self._expire(request)
            self._take(request, ask(f"approve-{alias}-{version.version}-{turn}", int(hours * 3600)))

    def _request(self, version: ModelVersion, alias: Alias, asked: Line) -> Request:
        self.note(asked)
        found = self.of(version.name, alias, version.version)
        assert found is not None  # noqa: S101 - its line was just written
        return found

    def _take(self, request: Request, answer: Answer) -> None:
        """From the form. An answer that does not count leaves the request open."""
        try:
            self.answer(request, answer.by, answer.approve, answer.comment)
        except ApprovalRefused:
            if request.expired(self.now()):
                raise


def _line(request: Request, kind: Kind, actor: str, reason: str) -> Line:
    line = request.line
    evidence = {"request": line.hash}
    return Line(0, "", line.model, line.alias, kind, None, line.to_version, actor, reason, evidence, "")


def approvals(parts: Promoter | None = None) -> Approvals:
    """Of this stack. Raises StackDown."""
    parts = parts or promoter()
    return Approvals(parts.connect, parts.note)


def approve(version: ModelVersion, alias: Alias, approval: ApprovalSpec, run_id: str, actor: str = "") -> None:
    """Go on where nobody has to say yes, or enough did. Raises ApprovalPending, ApprovalRefused, or suspends the flow."""
    needed = PEOPLE[getattr(approval, alias)]
    if not needed:
        return
    found, flow_run = approvals(), runtime.flow_run.id
    suspends = bool(runtime.deployment.id)
    evidence = {"needed": str(needed), "run": run_id, "version_sha256": version.sha256}
    if suspends and flow_run:
        evidence["flow_run"] = flow_run
    asked = request_line(
        version.name, alias, version.version, actor or getpass.getuser(), found.now(), approval.expires_hours, evidence
    )
    ask = _suspend if suspends else partial(_stop, version, alias, run_id)
    found.require(version, alias, asked, approval.expires_hours, ask)


def _suspend(key: str, seconds: int) -> Answer:
    """Ends this process; when the flow is run again, the answer that was given meanwhile."""
    return suspend_flow_run(wait_for_input=Answer, timeout=seconds, key=key)


def _stop(version: ModelVersion, alias: Alias, run_id: str, _key: str, _seconds: int) -> Answer:
    raise ApprovalPending(
        f"{version.name} version {version.version} to {alias}: waits for approval; somebody else runs `liftlock approve {run_id} "
        "--by NAME`, then run this again (a release with --resume)"
    )


def resume(request: Request, by: str, comment: str) -> bool:
    """Wake the flow run that waits for it; False where none does. It finds the words in the ledger."""
    flow_run = request.line.evidence.get("flow_run")
    if not flow_run or not (request.granted or request.denied):
        return False
    answer: dict[str, Any] = {"by": by, "approve": request.denied is None, "comment": comment}
    with get_client(sync_client=True) as client:
        result = client.resume_flow_run(UUID(flow_run), run_input=answer)
    return str(result.status.value) == "ACCEPT"
