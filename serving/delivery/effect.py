"""What every way of delivering does. An interface only; git_effect.py and apply_effect.py are the two."""

from __future__ import annotations

from typing import Protocol

from serving.delivery.change import Change
from serving.delivery.record import Record


class DeliveryFailed(Exception):
    """A step was written, and did not come into force."""


class Effect(Protocol):
    """`write` returns when the change is in force, and may be repeated: a step that is there already is only waited for."""

    def read(self) -> Record | None:
        """What was written last; None where the model was never delivered."""

    def write(self, change: Change) -> None:
        """Raises DeliveryFailed, and Blocked where a person has to act first."""

    def confirm_gone(self) -> None:
        """Where `read` says None: returns when nothing of the model runs any more. Raises DeliveryFailed."""

    def preview(self, change: Change) -> str:
        """The diff that it would make. Changes nothing."""
