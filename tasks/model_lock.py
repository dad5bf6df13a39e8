"""Locks on a model's name in Postgres: one release at a time, and one delivery (a rollout or a rollback) at a time."""

from __future__ import annotations

from typing import Literal

import psycopg

SPACES = {"release": 1, "rollout": 2}


class ReleaseUnderWay(Exception):
    """Another release, or another rollout, of the same model holds the lock."""


class ModelLock:
    """A session lock: it ends with the connection, so a killed process frees it. Raises ReleaseUnderWay where it is taken."""

    def __init__(self, dsn: str, model: str, what: Literal["release", "rollout"] = "release") -> None:
        self.dsn, self.model, self.what = dsn, model, what

    def __enter__(self) -> ModelLock:
        self.connection = psycopg.connect(self.dsn, autocommit=True)
        row = self.connection.execute(
            "SELECT pg_try_advisory_lock(hashtextextended(%s, %s))", [f"liftlock/{self.model}", SPACES[self.what]]
        ).fetchone()
        if not row or not row[0]:
            self.connection.close()
            raise ReleaseUnderWay(
                f"another {self.what} of {self.model} is under way; wait for it, or stop it, and run this again"
            )
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()
