"""`liftlock status`: every part's health, what is served since when on what evidence, and what is under way."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from tasks.overview import Overview, Served
    from tasks.stack.control import PartStatus

out = Console(soft_wrap=True, highlight=False, markup=False)


def status(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Show every part's health, what is served since when on what evidence, and what is under way. Exit 1 when a part is not ready.

    Example: liftlock status
    """
    from dataclasses import asdict

    from tasks.overview import overview
    from tasks.settings import get_settings
    from tasks.stack.control import status as read_parts

    parts, seen = read_parts(get_settings()), overview(get_settings())
    if as_json:
        typer.echo(json.dumps({"parts": [asdict(row) for row in parts], **asdict(seen)}, indent=2))
    else:
        print_parts(parts)
        print_overview(seen)
    raise typer.Exit(0 if all(row.health == "ready" for row in parts) else 1)


def print_parts(parts: list[PartStatus]) -> None:
    from tasks.stack.control import RENEW

    table = Table("part", "address", "version", "health", "memory", box=None, pad_edge=False)
    for row in parts:
        memory = f"{row.memory / 2**20:,.0f} MiB" if row.memory else ""
        table.add_row(row.part, row.address, row.version, row.health, memory)
    out.print(table)
    for row in parts:
        if row.changed:
            out.print(f"{row.part} {RENEW}")


def print_overview(seen: Overview) -> None:
    out.print("\nserved")
    for one in seen.served:
        out.print(f"  {one.model} {_version(one, seen.ledger)}")
        for said in _evidence(one):
            out.print(f"    {said}")
    if not seen.served:
        out.print("  no released model yet; `liftlock release SPEC` brings one")
    out.print("under way")
    for going in seen.under_way:
        out.print(f"  {going.model} {going.what}{f', since {_time(going.since)}' if going.since else ''}")
    if not seen.under_way:
        out.print("  nothing" if seen.ledger else "  nothing that is seen without the ledger")


def _version(one: Served, ledger: bool) -> str:
    if one.since is None:
        return f"as {one.engine_model}; " + ("never promoted" if ledger else "the ledger does not answer")
    return f"version {one.version} as {one.engine_model}, champion since {_time(one.since)}, by {one.by}"


def _evidence(one: Served) -> list[str]:
    digests = [f"{name} {value.rpartition(':')[2][:12]}" for name, value in (one.evidence or {}).items()]
    judged, report = [one.judged] if one.judged else [], [f"report {one.report}"] if one.report else []
    return [*judged, *([", ".join(digests)] if digests else []), *report]


def _time(iso: str) -> str:
    """To the minute; the day is that of UTC."""
    return f"{iso[:10]} {iso[11:16]} UTC"
