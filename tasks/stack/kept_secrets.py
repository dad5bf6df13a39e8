"""Secrets of the local stack: each made once, in a file that its owner alone can read."""

from __future__ import annotations

import base64
import os
import secrets
from collections.abc import Callable
from pathlib import Path


def kept(file: Path, make: Callable[[], str]) -> str:
    if not file.exists():
        file.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as out:
            out.write(make())
    return file.read_text()


def postgres_password(state: Path) -> str:
    return kept(state / "postgres.password", lambda: secrets.token_urlsafe(24))


def webhook_secret(state: Path) -> str:
    """MLflow signs its webhooks with it."""
    return kept(state / "webhook.secret", lambda: secrets.token_urlsafe(32))


def webhook_encryption_key(state: Path) -> str:
    """MLflow keeps the secret in its database under this key (Fernet's form); without it a restart would forget it."""
    return kept(state / "webhook.key", lambda: base64.urlsafe_b64encode(secrets.token_bytes(32)).decode())
