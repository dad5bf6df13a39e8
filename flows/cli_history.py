"""`liftlock history`, `show` and `diff`: who moved what when, where everything is now, and how two versions differ."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from flows.cli_promotion import PANEL, AsJson, Name, connected

out = Console(soft_wrap=True, highlight=False, markup=False)


def register(app: typer.Typer) -> None:
    for command in (history, show, diff, export):
        app.command(rich_help_panel=PANEL)(command)
    app.command("import", rich_help_panel=PANEL)(bring_in)


def history(name: Name, as_json: AsJson = False) -> None:
    """Every line of the ledger about a model, oldest first.

    Example: liftlock history ticket-router
    """
    from dataclasses import asdict

    where = connected(start=False)
    from tasks.ledger import DATABASE, moves
    from tasks.promotion.version_name import NoSuchVersion

    found = moves(where.dsn(DATABASE), name)
    if not found:
        raise NoSuchVersion(f"the ledger has no line about {name!r}; `liftlock release` writes the first")
    if as_json:
        typer.echo(json.dumps([asdict(line) for line in found], indent=2))
        return
    whole = (Column(name, no_wrap=True) for name in ("line", "at", "alias", "what", "from", "to", "by"))
    table = Table(*whole, Column("reason", overflow="fold"), box=None, pad_edge=False)  # the reason alone is broken
    for line in found:
        versions = (line.from_version or "none", line.to_version or "none")
        table.add_row(str(line.id), line.at[:19], line.alias, line.kind, *versions, line.actor, line.reason)
    out.print(table)


def show(name: Name, as_json: AsJson = False) -> None:
    """Where a model's aliases are, what is served, and whether ledger, MLflow and gateway agree. Exit 3 where they do not.

    Example: liftlock show ticket-router
    """
    connected(start=False)
    from dataclasses import asdict

    from tasks.versions import state_of

    state = state_of(name)
    if as_json:
        typer.echo(json.dumps({**asdict(state), "coherent": state.coherent}, indent=2))
    else:
        table = Table("alias", "MLflow", "ledger", box=None, pad_edge=False)
        for alias, (registry, ledger) in state.aliases.items():
            table.add_row(alias, registry or "none", ledger or "none")
        out.print(table)
        out.print(
            f"served at 100 %: {state.served}" + (f" (version {state.served_version})" if state.served_version else "")
        )
        out.print("coherent" if state.coherent else "not coherent: run `liftlock reconcile`")
    if not state.coherent:
        raise typer.Exit(3)


def export(
    name: Name,
    output: Annotated[Path | None, typer.Option(help="A new folder. Default: the model's name.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write everything about a model as files that need no Liftlock to read: ledger, versions, evidence, reports, digests.

    Example: liftlock export ticket-router --output ticket-router-2026
    """
    where = connected(start=False)
    from tasks.export import export as write
    from tasks.ledger import DATABASE, moves
    from tasks.settings import get_settings

    folder = output or Path(name)
    counts = write(name, folder, moves(where.dsn(DATABASE), name), get_settings().state) | {"folder": str(folder)}
    if as_json:
        typer.echo(json.dumps(counts, indent=2))
    else:
        typer.echo(
            "{folder}: {versions} versions, {ledger_lines} ledger lines, {images} images, {reports} reports; "
            "`sha256sum --check SHA256SUMS` there says whether it is whole".format(**counts)
        )


def bring_in(
    folder: Annotated[Path, typer.Argument(help="What `liftlock export` wrote.")],
    as_json: AsJson = False,
) -> None:
    """Bring an exported model back: versions, tags, evidence, ledger, aliases, reports. Sums first; does nothing twice.

    Example: liftlock import ticket-router-2026
    """
    from dataclasses import asdict

    from tasks.export_folder import read_export

    found = read_export(folder)  # before anything is started
    connected(start=True)
    from tasks.import_model import import_model
    from tasks.ledger import ledger_database
    from tasks.settings import get_settings

    done = import_model(found, ledger_database(), get_settings().state)
    if as_json:
        typer.echo(json.dumps(asdict(done), indent=2))
        return
    aliases = ", ".join(f"{alias} is version {version}" for alias, version in done.aliases.items()) or "no alias moved"
    out.print(
        f"{done.model}: {done.versions} versions, {done.ledger_lines} ledger lines, {done.reports} reports; {aliases}"
    )
    for said in done.not_brought:
        out.print(f"not brought: {said}")


def diff(
    name: Name,
    one: Annotated[str, typer.Argument(help="A version.")],
    other: Annotated[str, typer.Argument(help="Another version.")],
    as_json: AsJson = False,
) -> None:
    """What differs between two versions: metrics, parameters, data, digests.

    Example: liftlock diff ticket-router 1 2
    """
    connected(start=False)
    from tasks.versions import differences

    found = differences(name, one, other)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    table = Table("what", f"version {one}", f"version {other}", box=None, pad_edge=False)
    for group, rows in found.items():
        for key, (left, right) in rows.items():
            table.add_row(f"{group} {key}", left or "none", right or "none")
    out.print(table if any(found.values()) else f"versions {one} and {other} do not differ")
