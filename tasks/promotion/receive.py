"""An alias that was moved by hand: MLflow's webhook becomes an event for Prefect, once. The reconciler does the rest.

A delivery is remembered in the transaction that sends its event. So one that failed may come again, and one that
succeeded is a replay. Liftlock's own moves arrive here too, and are told apart by the ledger and its journal.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

from tasks.promotion import events, journal, ledger
from tasks.promotion.database import Connect, Connection
from tasks.promotion.ledger import ALIASES, Alias
from tasks.promotion.webhook import TOLERANCE_SECONDS, Delivery, WebhookRefused, read_delivery

EVENT = "liftlock.alias.set-by-hand"


@dataclass(frozen=True)
class Receiver:
    """`send` takes an event for Prefect, and raises EventNotSent."""

    connect: Connect
    secret: str
    send: Callable[[events.Event], None]
    now: Callable[[], float] = time.time

    def take(self, headers: Mapping[str, str], body: bytes) -> str:
        """What was done, in words. Raises WebhookRefused, EventNotSent, psycopg.OperationalError."""
        delivery = read_delivery(self.secret, headers, body, self.now())
        with self.connect() as connection:
            if not _known(connection, delivery.model):
                raise WebhookRefused(
                    404, f"model: {delivery.model!r:.80} is not in the ledger, required one that Liftlock released"
                )
            if delivery.alias not in ALIASES:
                return f"the alias {delivery.alias!r:.80} is not kept here, only {', '.join(ALIASES)}"
            with connection.transaction():
                _remember(connection, delivery)
                return self._pass_on(connection, delivery)

    def _pass_on(self, connection: Connection, found: Delivery) -> str:
        """The journal is read first: a move that ends in between has its line then, and is not taken for a request."""
        under_way = journal.open_intents(connection, found.model)
        last = ledger.position(connection, found.model, cast(Alias, found.alias))
        if (last.to_version if last else None) == found.version:
            return "the ledger says the same"
        if any(one.to_version == found.version for one, _ in under_way):
            return "Liftlock's own move, under way"
        payload = {"model": found.model, "alias": found.alias, "version": found.version or ""}
        self.send(events.event(EVENT, found.model, {"alias": found.alias}, payload, found.id, events.now()))
        return "passed on to be settled"


def _known(connection: Connection, model: str) -> bool:
    return connection.execute("SELECT 1 FROM alias_journal WHERE model = %s LIMIT 1", [model]).fetchone() is not None


def _remember(connection: Connection, delivery: Delivery) -> None:
    """What is older than the tolerance would be refused for its time, and is forgotten."""
    connection.execute(
        "DELETE FROM webhook_delivery WHERE at < clock_timestamp() - make_interval(secs => %s)", [3 * TOLERANCE_SECONDS]
    )
    added = connection.execute(
        "INSERT INTO webhook_delivery (id) VALUES (%s) ON CONFLICT DO NOTHING RETURNING id", [delivery.id]
    ).fetchone()
    if added is None:
        raise WebhookRefused(409, f"delivery {delivery.id[:80]}: a replay, required one that was not acted upon yet")
