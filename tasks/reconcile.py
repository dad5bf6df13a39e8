"""reconcile: what MLflow says against what the ledger says. A move by hand is a request: carried out on evidence, else taken back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tasks.promotion import events, ledger
from tasks.promotion.evidence import EvidenceRefused
from tasks.promotion.ledger import ALIASES, Alias, Line
from tasks.promotion.move import AliasMoved, Promoter, Wanted
from tasks.promotion.registry import RegistryRefused

ACTOR = "mlflow"


@dataclass(frozen=True)
class Found:
    """One alias that was not where the ledger says, and what was done: accepted, requested, put_back or removed."""

    model: str
    alias: Alias
    ledger_version: str | None
    mlflow_version: str | None
    done: str
    reason: str


@dataclass(frozen=True)
class Reconciler:
    """`is_served(model, version)` says whether that version has all of the traffic; `send` takes an event for Prefect;
    `waits(model, alias, version)` says whether people have to approve that move.
    """

    promoter: Promoter
    is_served: Callable[[str, str], bool]
    send: Callable[[events.Event], None]
    waits: Callable[[str, Alias, str], bool] = lambda *_: False

    def models(self) -> list[str]:
        """Those the ledger knows; a model that Liftlock never released is nobody's business here."""
        with self.promoter.connect() as connection:
            rows = connection.execute("SELECT DISTINCT model FROM alias_journal ORDER BY model").fetchall()
        return [str(row[0]) for row in rows]

    def model(self, model: str) -> list[Found]:
        """Raises RegistryUnreachable, PromotionBusy, psycopg.OperationalError: then the next minute's run does it."""
        self.promoter.finish(model)
        found = (self._alias(model, alias) for alias in ALIASES)
        return [one for one in found if one is not None]

    def _alias(self, model: str, alias: Alias) -> Found | None:
        with self.promoter.connect() as connection:
            last = ledger.position(connection, model, alias)
        written, now = last.to_version if last else None, self.promoter.registry.alias(model, alias)
        if now == written:
            return None
        try:
            if now is None:
                return self._restore(model, alias, str(written))
            return self._request(model, alias, written, now)
        except AliasMoved:
            return None  # somebody moves it now; the next run sees how that ended

    def _request(self, model: str, alias: Alias, written: str | None, now: str) -> Found:
        """Set by hand. Only a champion that is served may stay at once; another one is asked for, through a rollout."""
        reason = f"set to version {now} by hand in MLflow"
        try:
            if (alias != "champion" or self.is_served(model, now)) and not self.waits(model, alias, now):
                self.promoter.move(Wanted(model, alias, now, now, ACTOR, reason, {}))
                return Found(model, alias, written, now, "accepted", reason)
            self.promoter.verify(model, alias, now, {})
        except EvidenceRefused as refused:
            self._put_back(model, alias, written, now, f"{reason}, refused: {refused}")
            self.promoter.note(Line(0, "", model, alias, "refused", written, now, ACTOR, str(refused), {}, ""))
            self.promoter.registry.tag(model, now, "liftlock.refused", str(refused)[:5000])
            return Found(model, alias, written, now, "put_back", str(refused))
        line = self._put_back(model, alias, written, now, f"{reason}; it becomes {alias} when its promotion has passed")
        payload = {"model": model, "alias": alias, "version": now, "reason": reason}
        labels = {"alias": alias, "version": now}
        self.send(
            events.event(
                "liftlock.alias.requested", model, labels, payload, f"requested {line and line.hash}", events.now()
            )
        )
        return Found(model, alias, written, now, "requested", reason)

    def _put_back(self, model: str, alias: Alias, written: str | None, now: str | None, reason: str) -> Line | None:
        return self.promoter.move(Wanted(model, alias, written, now, ACTOR, reason, {}, "put_back"))

    def _restore(self, model: str, alias: Alias, written: str) -> Found:
        """Deleted by hand: the alias comes back, unless its version is gone too."""
        try:
            self._put_back(model, alias, written, None, "the alias was deleted by hand in MLflow")
            return Found(model, alias, written, None, "put_back", "the alias was deleted by hand in MLflow")
        except RegistryRefused:
            reason = f"version {written} was deleted by hand in MLflow; roll back to another one, or release"
            self.promoter.note(Line(0, "", model, alias, "removed", written, None, ACTOR, reason, {}, ""))
            return Found(model, alias, written, None, "removed", reason)


def reconciler(promoter: Promoter) -> Reconciler:
    """With the gateway of this machine and Prefect. Raises StackDown."""
    import mlflow

    from serving.rollout.local import LocalTarget
    from tasks.promotion.recall import recall_spec
    from tasks.settings import get_settings
    from tasks.stack.addresses import addresses
    from tasks.stack.control import default_engine, gateway_of

    settings = get_settings()
    where = addresses(settings)
    target = LocalTarget(gateway_of(settings, where, default_engine(settings)))
    client = mlflow.MlflowClient(where.mlflow)

    def is_served(model: str, version: str) -> bool:
        return bool(client.get_model_version(model, version).tags.get("liftlock.engine_model") == target.stable(model))

    def waits(model: str, alias: Alias, version: str) -> bool:
        try:
            return getattr(recall_spec(client, model, version).approval, alias, "none") != "none"
        except EvidenceRefused:
            return False  # then the move itself is refused, with more reasons

    return Reconciler(promoter, is_served, events.PrefectEvents(where.prefect_api).send, waits)
