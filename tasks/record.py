"""What surrounds the stages of a release: the spec, the stack, the lock on the model, and the record when it ends, however it ends."""

from __future__ import annotations

import getpass
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeVar

import httpx
import mlflow
from prefect import runtime, tags

from serving.fit.contract import ContractBroken
from serving.modelcar.content import ContentMismatch
from serving.modelcar.signed import VerificationFailed
from tasks.approve import ApprovalPending, ApprovalRefused, approve
from tasks.artifacts import (
    Adapter,
    Dataset,
    EvalPair,
    FitReport,
    GateDecision,
    Modelcar,
    ModelVersion,
    Outcome,
    Rollout,
    Sample,
)
from tasks.base_model import resolve_base
from tasks.engine_contract import kept_contract
from tasks.exit_codes import code_of
from tasks.gate_page import write_gate_page
from tasks.judge import GateRefused
from tasks.labels import label_flow_run
from tasks.lease import LeaseLost, leased
from tasks.ledger import alias_version, event_sender
from tasks.model_lock import ModelLock
from tasks.noise import check_spec
from tasks.package import check_package
from tasks.place import Place, await_place, bring_up, current_place, end_unused, start
from tasks.preflight import DoesNotFit
from tasks.promotion import events
from tasks.promotion.events import EventNotSent
from tasks.promotion.ledger import Alias
from tasks.report import write_report
from tasks.roll_out import RolloutUndone
from tasks.run import Run, start_run
from tasks.settings import get_settings
from tasks.spec import Release, load_release
from tasks.stack.addresses import Addresses, addresses

T = TypeVar("T")
Verdict = Literal["champion", "rejected", "inconclusive", "undone", "failed"]
KEPT: dict[type, str] = {
    Dataset: "dataset", Adapter: "adapter", EvalPair: "pair", GateDecision: "decision", ModelVersion: "version",
    FitReport: "fit", Modelcar: "modelcar", Rollout: "rollout", Sample: "sample",
}  # fmt: skip


class Record:
    """A context manager around the stages. `keep` notes a stage's value for the report; the exit writes run.json and report.html.

    Raises SpecInvalid, BaseModelRefused, LicenceNotAllowed, ShellMissing, StackTaken, EngineBusy, MarginBelowNoise, ReleaseUnderWay
    before the first stage.
    """

    def __init__(self, spec_file: Path, *, resume: bool, fresh: bool, actor: str = "") -> None:
        settings = get_settings()
        self.spec_file = spec_file.absolute()
        self.spec: Release = load_release(self.spec_file)
        self._base = resolve_base(self.spec.base_model, settings)
        check_package(self.spec, self._base, settings)
        self._values: dict[str, Any] = {}
        self._stack = ExitStack()
        again = (runtime.flow_run.run_count or 1) > 1  # it was suspended, and goes on in its folder
        self._options = {"resume": resume or again, "fresh": fresh and not again}
        self._actor = actor or getpass.getuser()

    def __enter__(self) -> Record:
        settings = get_settings()
        own = bring_up(settings, self.spec, self._base)
        self.where: Addresses = addresses(settings)
        check_spec(self.spec, settings.state)
        self._stack.enter_context(ModelLock(self.where.dsn("liftlock"), self.spec.name))
        self._place: Place = start(settings, own) if own else current_place(settings, self.spec.name)
        self.run: Run = start_run(settings.state, self.spec_file, self.spec.name, **self._options)
        self.run.actor = self._actor
        labels = (f"model:{self.spec.name}", f"run:{self.run.run_id}")
        label_flow_run(f"{self.spec.name} {self.run.run_id}", *labels)
        self._stack.enter_context(tags(*labels))
        self._stack.enter_context(leased(self.run, self.where.dsn("liftlock")))
        return self

    @property
    def run_id(self) -> str:
        return self.run.run_id

    def approve(self, alias: Alias) -> None:
        """Go on once the people whom the spec asks for said yes; nobody is asked where the alias is there already.

        Raises ApprovalPending, ApprovalRefused, or suspends the flow.
        """
        version = self._values["version"]
        if alias_version(mlflow.MlflowClient(), version.name, alias) != version.version:
            approve(version, alias, self.spec.approval, self.run_id, self._actor)

    def await_engine(self) -> None:
        """It starts beside the training: nothing asks it before. Raises PartNotReady."""
        await_place(get_settings(), self._place)

    def keep(self, value: T) -> T:
        self._values[KEPT[type(value)]] = value
        return value

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            if isinstance(error, GateRefused):
                self._values["decision"] = error.decision
            if isinstance(error, DoesNotFit):
                self._values["fit"] = error.report
            self._values["contract"] = kept_contract(self._values.get("modelcar"))
            if isinstance(error, RolloutUndone):
                self._values["rollout"] = error.rollout
            if error is not None and (not isinstance(error, Exception) or isinstance(error, STOPPED)):
                return  # stopped from outside: the run stays unfinished and can be resumed
            end_unused(get_settings(), self.spec.name, self.spec.delivery.drain_seconds)
            verdict = _verdict(error)
            reasons = _reasons(error, self._values.get("decision"))
            champion, reference = self._champion()
            outcome = Outcome(
                self.run.run_id,
                self.spec.name,
                self.spec_file,
                verdict,
                reasons,
                tuple(self.run.stages),
                champion,
                reference,
                **self._values,
            )
            report = write_report(self.run.folder, outcome)
            write_gate_page(self.run.folder, outcome)
            code = code_of(error) if error is not None and verdict == "failed" else EXIT_CODES[verdict]
            self.run.record(verdict=verdict, **self._summary(outcome, report, code))
            self._announce(outcome)

    def _announce(self, outcome: Outcome) -> None:
        """How it ended, as an event and as the flow run's tags; what cannot be told changes nothing."""
        version = outcome.version.version if outcome.version else ""
        payload = {
            "run": outcome.run_id,
            "verdict": outcome.verdict,
            "version": version,
            "reasons": list(outcome.reasons),
        }
        name, key = f"liftlock.release.{outcome.verdict}", f"ended {outcome.run_id} {time.time()}"
        with suppress(EventNotSent, httpx.HTTPError):
            event_sender()(events.event(name, outcome.name, {"version": version}, payload, key, events.now()))
            label_flow_run(
                f"{outcome.name} {outcome.run_id}",
                f"verdict:{outcome.verdict}",
                *([f"version:{version}"] if version else ()),
            )

    def _champion(self) -> tuple[str | None, str | None]:
        client = mlflow.MlflowClient()
        version = alias_version(client, self.spec.name, "champion")
        if version is None:
            return None, None
        return version, client.get_model_version(self.spec.name, version).tags.get("liftlock.modelcar")

    def _summary(self, outcome: Outcome, report: Path, code: int) -> dict[str, Any]:
        version = outcome.version
        aliases = (
            list(mlflow.MlflowClient().get_model_version(version.name, version.version).aliases) if version else []
        )
        return {
            "exit_code": code,
            "reasons": list(outcome.reasons),
            "model": {
                "name": outcome.name,
                "version": version.version if version else None,
                "aliases": sorted(aliases),
            },
            "champion": {"version": outcome.champion, "reference": outcome.champion_reference},
            "gateway": self.where.gateway,
            "report": str(report),
        }


STOPPED = (LeaseLost, ApprovalPending)
EXIT_CODES: dict[str, int] = {"champion": 0, "rejected": 3, "undone": 3, "inconclusive": 4}


def _verdict(error: BaseException | None) -> Verdict:
    if error is None:
        return "champion"
    if isinstance(error, GateRefused):
        return "inconclusive" if error.decision.verdict == "inconclusive" else "rejected"
    if isinstance(error, RolloutUndone):
        return "undone"
    refused = (ApprovalRefused, DoesNotFit, ContractBroken, VerificationFailed, ContentMismatch)
    return "rejected" if isinstance(error, refused) else "failed"


def _reasons(error: BaseException | None, decision: GateDecision | None) -> tuple[str, ...]:
    if error is None or isinstance(error, GateRefused):
        return decision.reasons if decision else ()
    return (f"{error}",)
