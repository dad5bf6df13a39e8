"""What `liftlock doctor --cluster` prints: a table of what is missing with its fix, and the JSON document."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.table import Table

from serving.cluster_doctor.examine import Examined
from serving.cluster_doctor.expected import Overlay
from serving.cluster_doctor.model import Finding


def table(examined: Examined) -> Table:
    made = Table(box=None, padding=(0, 2, 1, 0), show_edge=False)
    for heading in ("check", "object", "observed → required", "fix"):
        made.add_column(heading, overflow="fold")
    for one in examined.findings:
        check = one.check if one.level == "missing" else f"{one.check} (note)"
        made.add_row(check, one.where, _said(one), one.fix)
    return made


def _said(one: Finding) -> str:
    return one.observed if one.required == "there" else f"{one.observed} → {one.required}"


def verdict(examined: Examined, overlay: Overlay, user: str) -> str:
    """The last line, and the one before it where something could not be looked at."""
    missing, notes = len(examined.missing), len(examined.findings) - len(examined.missing)
    said = "complete" if not missing else f"{missing} missing"
    lines = [f"not looked at for what is missing above: {', '.join(examined.unseen)}"] if examined.unseen else []
    told = f", {notes} note{'s' if notes > 1 else ''}" if notes else ""
    lines.append(f"{said}{told} ({examined.looked_at} objects and rights, overlay {overlay}, as {user})")
    return "\n".join(lines)


def document(examined: Examined, overlay: Overlay, user: str) -> dict[str, Any]:
    return {
        "complete": not examined.missing,
        "overlay": overlay,
        "user": user,
        "findings": [_finding(one) for one in examined.findings],
        "not_looked_at": list(examined.unseen),
        "looked_at": examined.looked_at,
    }


def _finding(one: Finding) -> dict[str, Any]:
    return {"object" if key == "where" else key: value for key, value in asdict(one).items()}
