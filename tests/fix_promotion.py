"""A promoter on a real Postgres and a real MLflow, and the same with its calls counted, failing or fatal.

Every call to Postgres, MLflow or Prefect passes through one `Calls`, which numbers its boundaries: before and after each.
So a test asks the code how many there are and goes through all of them.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import psycopg
import pytest

from tasks.promotion.database import connect
from tasks.promotion.events import EventNotSent
from tasks.promotion.ledger import Line, lines
from tasks.promotion.move import Promoter, Wanted
from tasks.promotion.registry import MlflowRegistry, RegistryUnreachable


@dataclass
class Calls:
    """`seen` names the calls so far. `at` gets the number of each boundary: even before a call, odd after it."""

    at: Callable[[int], None] = lambda _: None
    failing: Collection[int] = ()
    seen: list[str] = field(default_factory=list)

    def make(self, name: str, call: Callable[[], Any], error: Exception) -> Any:
        number = len(self.seen)
        self.seen.append(name)
        self.at(2 * number)
        if number in self.failing:
            raise error
        value = call()
        self.at(2 * number + 1)
        return value


@dataclass(frozen=True)
class Connection:
    """psycopg's, through Calls; a failing call loses the connection, as a broken network would."""

    inner: psycopg.Connection[Any]
    calls: Calls

    def _make(self, name: str, call: Callable[[], Any]) -> Any:
        lost = psycopg.OperationalError("the connection is lost")
        try:
            return self.calls.make(name, call, lost)
        except psycopg.OperationalError:
            self.inner.close()
            raise

    def execute(self, query: str, values: Any = None) -> Any:
        return self._make(query[:50], partial(self.inner.execute, query, values))

    @contextmanager
    def transaction(self) -> Iterator[None]:
        block = self.inner.transaction()
        self._make("BEGIN", block.__enter__)
        try:
            yield
        except BaseException as error:
            if not self.inner.closed:
                block.__exit__(type(error), error, error.__traceback__)
            raise
        self._make("COMMIT", partial(block.__exit__, None, None, None))

    def close(self) -> None:
        self.inner.close()


@dataclass(frozen=True)
class Registry:
    """MLflow's, through Calls."""

    inner: MlflowRegistry
    calls: Calls

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.inner, name)
        gone = RegistryUnreachable("MLflow does not answer")
        return lambda *values: self.calls.make(f"mlflow {name}", partial(method, *values), gone)


def claimed(_model: str, _alias: str, _version: str, evidence: Mapping[str, str]) -> Mapping[str, str]:
    """For models that have no artifacts; evidence has tests of its own."""
    return evidence


@dataclass(frozen=True)
class Promotion:
    """A promoter, what it told, and its model."""

    dsn: str
    uri: str
    model: str
    promoter: Promoter
    told: list[Line]

    def counted(self, calls: Calls) -> Promoter:
        def tell(line: Line) -> None:
            calls.make("prefect", partial(self.told.append, line), EventNotSent("Prefect does not answer"))

        return replace(
            self.promoter,
            connect=lambda: Connection(calls.make("connect", partial(connect, self.dsn), psycopg.OperationalError("no route")), calls),  # type: ignore[arg-type,return-value]
            registry=Registry(self.promoter.registry, calls),  # type: ignore[arg-type]
            tell=tell,
        )  # fmt: skip

    def wanted(self, version: str, expected: str | None, alias: Any = "champion", **more: Any) -> Wanted:
        evidence = {"adapter_sha256": "a" * 64, "note": 'said "yes" – 100 %'}
        return Wanted(self.model, alias, version, expected, "ada", f"to {version}", evidence, **more)

    def move(self, version: str, expected: str | None, alias: Any = "champion", **more: Any) -> Line | None:
        return self.promoter.move(self.wanted(version, expected, alias, **more))

    def lines(self) -> list[Line]:
        with connect(self.dsn) as connection:
            return lines(connection, self.model)

    def story(self) -> list[tuple[str, str | None, str | None]]:
        return [(line.alias, line.from_version, line.to_version) for line in self.lines()]

    def alias(self, name: str = "champion") -> str | None:
        return self.promoter.registry.alias(self.model, name)


@pytest.fixture
def promotion(database: str, mlflow_server: str, mlflow_client: Any, registered: str) -> Promotion:
    told: list[Line] = []
    parts = Promoter(partial(connect, database), MlflowRegistry(mlflow_server), claimed, told.append)
    return Promotion(database, mlflow_server, registered, parts, told)


def killed(body: Callable[[], None]) -> bool:
    """Run it in a process of its own; whether it died of SIGKILL. Any other bad end is an error here."""
    child = os.fork()
    if child == 0:
        try:
            body()
            os._exit(0)
        except BaseException:  # noqa: BLE001 - nothing of pytest may run in this process
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the child broke"
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
