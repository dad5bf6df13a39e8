"""API keys of the gateway's clients, and the one that the release's own requests carry once keys are required."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from serving.gateway.files import replace_file
from serving.gateway.keys import Key, KeyRefused, added, new_key, read_keys, revoked
from serving.gateway.state import Gateway, GatewayNotApplied

OWN = "liftlock"


def add_key(
    gateway: Gateway,
    client: str,
    models: Sequence[str] | None,
    per_minute: int | None,
    show: Callable[[str], None] = lambda clear: None,
) -> str:
    """The new key in clear; it is kept nowhere. From the first key on the gateway asks everybody for one.

    `show` gets it as soon as it is on record, also where the gateway is down and takes it later. Raises KeyRefused,
    GatewayNotApplied.
    """
    clear, key = new_key(client, models, per_minute)

    def edit(keys: tuple[Key, ...] | None) -> tuple[Key, ...]:
        return added(keys if keys is not None else (_new_own_key(gateway.folder),), key)

    try:
        gateway.change_keys(edit)
    except GatewayNotApplied:
        show(clear)
        raise
    show(clear)
    return clear


def revoke_key(gateway: Gateway, client: str) -> None:
    """In force when it returns. Raises KeyRefused, GatewayNotApplied."""
    if client == OWN:
        raise KeyRefused(
            f"the key of {OWN} carries the requests of the canary and the sample; it goes with `liftlock apikey off`"
        )
    gateway.change_keys(lambda keys: revoked(keys, client))


def require_none(gateway: Gateway) -> None:
    """Everybody may ask again; all keys are forgotten."""
    gateway.change_keys(lambda _: None)
    own_key_file(gateway.folder).unlink(missing_ok=True)


def clients(gateway: Gateway) -> tuple[Key, ...] | None:
    return read_keys(gateway.folder)


def own_key_file(folder: Path) -> Path:
    return folder / "own.key"


def own_headers(folder: Path) -> dict[str, str]:
    """What the release's own requests to the gateway carry: nothing where no key is required."""
    key = own_key(folder)
    return {"authorization": f"Bearer {key}"} if key else {}


def own_key(folder: Path) -> str | None:
    file = own_key_file(folder)
    return file.read_text().strip() if file.exists() else None


def _new_own_key(folder: Path) -> Key:
    clear, key = new_key(OWN, None, None)
    replace_file(own_key_file(folder), f"{clear}\n", mode=0o600)
    return key
