"""Secrets of the local stack: each made once, in a file that its owner alone can read."""

from __future__ import annotations

import base64
import fcntl
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tasks.whole_file import settle_folder, write_beside


def kept(file: Path, make: Callable[[], str]) -> str:
    """The secret, made where there is none. An empty file is what a kill left behind: nothing was ever encrypted with it.

    The name appears with the whole secret behind it, and never takes another's place: two first users get the same one.
    """
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not (file.exists() and file.stat().st_size):
        with _folder_locked(file.parent):
            _make(file, make)
    return file.read_text()


def _make(file: Path, make: Callable[[], str]) -> None:
    if file.exists():
        if file.stat().st_size:
            return
        file.unlink()
    temporary = write_beside(file, make().encode(), 0o600)
    try:
        os.link(temporary, file)
    finally:
        temporary.unlink()
    settle_folder(file.parent)


@contextmanager
def _folder_locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def postgres_password(state: Path) -> str:
    return kept(state / "postgres.password", lambda: secrets.token_urlsafe(24))


def webhook_secret(state: Path) -> str:
    """MLflow signs its webhooks with it."""
    return kept(state / "webhook.secret", lambda: secrets.token_urlsafe(32))


def webhook_encryption_key(state: Path) -> str:
    """MLflow keeps the secret in its database under this key (Fernet's form); without it a restart would forget it."""
    return kept(state / "webhook.key", lambda: base64.urlsafe_b64encode(secrets.token_bytes(32)).decode())
