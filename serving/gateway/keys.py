"""API keys of the gateway's clients: 256 random bits, shown once, kept as SHA-256 in keys.json, readable by its owner alone.

A key is no password: nobody chose it and nothing can be guessed from it, so one round of SHA-256 is enough.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from serving.gateway.files import replace_file
from serving.gateway.model import check_name

CLIENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
PREFIX = "llk-"


class KeyRefused(Exception):
    """The client's name, limit or models cannot be used, or the name is taken or unknown."""


@dataclass(frozen=True)
class Key:
    """One client's key without the key. `models` None: all of them. `per_minute` None: no limit."""

    client: str
    sha256: str
    created: str
    models: tuple[str, ...] | None = None
    per_minute: int | None = None

    def __post_init__(self) -> None:
        if not CLIENT.fullmatch(self.client):
            raise KeyRefused(
                f"client {self.client!r}: required are 1 to 64 letters, digits, dots, dashes and underscores"
            )
        if not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise KeyRefused(f"the digest of client {self.client} is not one of SHA-256")
        if self.per_minute is not None and not 1 <= self.per_minute <= 1_000_000:
            raise KeyRefused(f"{self.per_minute} requests a minute for {self.client}: required are 1 to 1,000,000")
        for model in self.models or ():
            try:
                check_name(model)
            except ValueError as error:
                raise KeyRefused(str(error)) from None


def read_keys(folder: Path) -> tuple[Key, ...] | None:
    """None where keys are not required. A file that cannot be read is an error, never an open gateway."""
    file = folder / "keys.json"
    if not file.exists():
        return None
    rows: list[dict[str, Any]] = json.loads(file.read_text())
    return tuple(Key(**{**row, "models": None if row["models"] is None else tuple(row["models"])}) for row in rows)


def write_keys(folder: Path, keys: Sequence[Key] | None) -> None:
    """None: keys are no longer required."""
    file = folder / "keys.json"
    if keys is None:
        file.unlink(missing_ok=True)
        return
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(file, json.dumps([asdict(key) for key in keys], indent=2) + "\n", mode=0o600)


def new_key(client: str, models: Sequence[str] | None, per_minute: int | None) -> tuple[str, Key]:
    """The key in clear, to be shown once, and what is kept. Raises KeyRefused."""
    clear = PREFIX + secrets.token_urlsafe(32)
    created = datetime.now(UTC).isoformat(timespec="seconds")
    digest = hashlib.sha256(clear.encode()).hexdigest()
    return clear, Key(client, digest, created, None if models is None else tuple(models), per_minute)


def added(keys: Sequence[Key] | None, key: Key) -> tuple[Key, ...]:
    """Raises KeyRefused where the client has a key."""
    if any(one.client == key.client for one in keys or ()):
        raise KeyRefused(f"{key.client} has a key; revoke it first, or take another name, e.g. {key.client}-2")
    return (*(keys or ()), key)


def revoked(keys: Sequence[Key] | None, client: str) -> tuple[Key, ...]:
    """Without that client; the gateway keeps on asking for keys when it was the last. Raises KeyRefused."""
    left = tuple(key for key in keys or () if key.client != client)
    if len(left) == len(keys or ()):
        have = ", ".join(key.client for key in keys or ()) or "none"
        raise KeyRefused(f"there is no key of {client!r}; clients with a key: {have}")
    return left
