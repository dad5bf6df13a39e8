"""A stage: a Prefect task with a cache key of digests, an artifact, a line on the terminal and a record in the run.

A cached value is believed only after `intact` has looked at what it stands for; otherwise the stage runs again.
The wrapped function does the work and knows nothing of this.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Generic, Literal, ParamSpec, TypeVar, get_type_hints

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State

from tasks.artifacts import StageRecord
from tasks.digests import digest_of as digest_of
from tasks.retry import retry_condition
from tasks.run import current_run

P = ParamSpec("P")
T = TypeVar("T")
Status = Literal["done", "rejected", "inconclusive", "undone"]


class Stage(Generic[P, T]):
    """Call it like the function it wraps."""

    def __init__(
        self,
        name: str,
        function: Callable[P, T],
        *,
        key: Callable[P, tuple[Any, ...]] | None,
        digest: Callable[[T], str],
        note: Callable[[T], str],
        artifact: Callable[[T], str],
        intact: Callable[[T], bool],
        status: Callable[[T], Status],
        retries: int,
    ) -> None:
        self.name, self.function, self.key = name, function, key
        self.digest, self.note, self.artifact, self.intact, self.status = digest, note, artifact, intact, status
        self.retries = retries

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        run = current_run()
        run.begin(self.name)
        began = time.monotonic()
        key = f"liftlock-{self.name}-{digest_of(*self.key(*args, **kwargs))}" if self.key else None
        state = self._attempt(key, run.fresh, args, kwargs)
        if state.name == "Cached" and not self._believes(state.result()):
            state = self._attempt(key, True, args, kwargs)
        if not state.is_completed():
            run.add(StageRecord(self.name, "failed", time.monotonic() - began, False, "", _first_line(state.message)))
        value: T = state.result()
        record = StageRecord(
            self.name,
            self.status(value),
            round(time.monotonic() - began, 3),
            state.name == "Cached",
            self.digest(value),
            self.note(value),
        )
        run.add(record)
        return value

    def _believes(self, value: T) -> bool:
        """Whether a cached value is of the class that the function returns (it was renamed since, otherwise) and intact."""
        returned = get_type_hints(self.function).get("return")
        return (not isinstance(returned, type) or isinstance(value, returned)) and self.intact(value)

    def _attempt(self, key: str | None, refresh: bool, args: Any, kwargs: Any) -> State[T]:
        def body() -> T:
            value = self.function(*args, **kwargs)
            create_markdown_artifact(
                self.artifact(value), key=f"liftlock-{self.name.replace('_', '-')}", description=self.note(value)
            )
            return value

        caching: dict[str, Any] = {"persist_result": False}
        if key:
            caching = {"cache_key_fn": lambda *_: key, "persist_result": True, "result_serializer": "json"}
        policy: dict[str, Any] = {
            "name": self.name,
            "task_run_name": f"{self.name} {current_run().name}",
            "retries": self.retries,
            "retry_delay_seconds": 2,
            "retry_condition_fn": retry_condition,
            "refresh_cache": refresh,
        }
        state: State[T] = task(**policy, **caching)(body)(return_state=True)
        return state


def stage(
    name: str,
    *,
    key: Callable[..., tuple[Any, ...]] | None,
    digest: Callable[[Any], str],
    note: Callable[[Any], str],
    artifact: Callable[[Any], str],
    intact: Callable[[Any], bool] = lambda _: True,
    status: Callable[[Any], Status] = lambda _: "done",
    retries: int = 2,
) -> Callable[[Callable[P, T]], Stage[P, T]]:
    """Decorator. `key` gives the digests that the result depends on (None: never cached); `digest`, `note` and `artifact`
    describe the result: its sha256, one line for the terminal, Markdown for Prefect's page.
    """

    def wrap(function: Callable[P, T]) -> Stage[P, T]:
        return Stage(
            name,
            function,
            key=key,
            digest=digest,
            note=note,
            artifact=artifact,
            intact=intact,
            status=status,
            retries=retries,
        )

    return wrap


def _first_line(message: str | None) -> str:
    return (message or "no message").strip().splitlines()[0][:200]
