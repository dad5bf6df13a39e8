"""How a person names a version: `NAME`, `NAME@alias` or `NAME/version`. It needs no MLflow, so a wrong name is told at once."""

from __future__ import annotations

import re

from tasks.promotion.ledger import ALIASES
from tasks.spec import NAME

FORMS = f"give NAME, NAME@alias (one of {', '.join(ALIASES)}) or NAME/version"


class NoSuchVersion(LookupError):
    """MLflow has no such model, alias or version."""


def asked(text: str) -> tuple[str, str | None, str | None]:
    """Name, alias, version; the bare name means its candidate. Raises NoSuchVersion."""
    name, at, alias = text.partition("@")
    name, slash, number = name.partition("/") if not at else (name, "", "")
    if not re.match(NAME, name) or (slash and not number.isdecimal()) or (at and not alias):
        raise NoSuchVersion(f"{text[:80]!r} names no version; {FORMS}")
    return name, None if slash else alias or "candidate", number or None
