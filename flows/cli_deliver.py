"""`liftlock deliver`: a registered version onto the cluster, by commits or by server-side apply, through the same canary as here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from flows.cli_promotion import AsJson, connected

out = Console(soft_wrap=True, highlight=False, markup=False)


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel="Release")(deliver)


def deliver(
    spec: Annotated[
        Path, typer.Argument(metavar="SPEC", help="A release.yaml; of it, `name` and `delivery` are read.")
    ],
    target: Annotated[
        Literal["gitops", "kubernetes"] | None, typer.Option(help="In place of delivery.target in the spec.")
    ] = None,
    version: Annotated[str | None, typer.Option(help="A registered version; else the one at @staging.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the diff of the first step; change nothing.")
    ] = False,
    reason: Annotated[str, typer.Option(help="Written into the ledger.")] = "delivered at the command line",
    as_json: AsJson = False,
) -> None:
    """Bring a version to 100 % of its model's traffic on the cluster, step by step, or back; then it is champion.

    Exit 0: done; 2: bad input; 3: undone, refused, or no room.

    Example: liftlock deliver release.yaml --target gitops --dry-run
    """
    from tasks.deliver import deliver_version, preview, wanted_delivery
    from tasks.spec import load_release

    release = load_release(spec, needed=("nothing",))
    delivery = wanted_delivery(release, target)
    if dry_run:
        _registry()
        said = preview(release, version, delivery)
        return typer.echo(
            json.dumps({"target": delivery.target, "diff": said}, indent=2) if as_json else said, nl=as_json
        )
    connected(start=False)
    done = deliver_version(release.name, version, delivery, reason)
    if as_json:
        said = json.dumps(
            {"target": delivery.target, "from": done.from_version, "to": done.to_version, "moved": done.moved}
        )
        return typer.echo(said)
    return out.print(f"{done.model}: version {done.to_version} is served by target {delivery.target} and is champion")


def _registry() -> None:
    from tasks.settings import get_settings
    from tasks.stack.addresses import export_mlflow, mlflow_address

    export_mlflow(mlflow_address(get_settings()))
