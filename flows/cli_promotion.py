"""`liftlock promote`, `rollback`, `reconcile` and `ledger verify`: what moves aliases, and the check of what was moved."""

from __future__ import annotations

import json
import logging
import os
from typing import Annotated, Any, Literal

import typer
from rich.console import Console

PANEL = "Promotion"
ledger = typer.Typer(help="The record of alias moves.", no_args_is_help=True)
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
Name = Annotated[str, typer.Argument(help="Name of the registered model.")]
out = Console(soft_wrap=True, highlight=False, markup=False)


def register(app: typer.Typer) -> None:
    for command in (promote, rollback, reconcile, approve, approvals):
        app.command(rich_help_panel=PANEL)(command)


def connected(*, start: bool) -> Any:
    """The addresses, with this process' clients pointed at them. Raises StackDown; with `start` the stack is brought up."""
    from tasks.settings import get_settings
    from tasks.stack.addresses import addresses, export_client_settings
    from tasks.stack.control import up

    settings = get_settings()
    where = up(settings, lambda _: None) if start else addresses(settings)
    export_client_settings(where)
    os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "2"  # a person waits for the answer
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # it would tell of each try
    return where


def promote(
    what: Annotated[str, typer.Argument(metavar="NAME[@alias|/version]", help="The bare name means its candidate.")],
    to: Annotated[Literal["staging", "champion"], typer.Option(help="The alias to move.")],
    expect: Annotated[str | None, typer.Option(help="Stop unless the alias names this version now.")] = None,
    reason: Annotated[str, typer.Option(help="Written into the ledger.")] = "asked for at the command line",
    as_json: AsJson = False,
) -> None:
    """Promote a registered version on its evidence; to champion through a canary.

    Example: liftlock promote ticket-router@staging --to champion
    """
    from tasks.promotion.version_name import asked

    asked(what)  # before a stack is started for it
    connected(start=True)
    import mlflow

    from tasks.promote import promote_version
    from tasks.promotion.recall import find_version

    name, version = find_version(mlflow.MlflowClient(), what)
    _say(promote_version(name, version, to, expected=expect, reason=reason), as_json)


def rollback(
    name: Name,
    to: Annotated[str | None, typer.Option(help="The version to go back to; else the champion before.")] = None,
    reason: Annotated[str, typer.Option(help="Written into the ledger.")] = "",
    as_json: AsJson = False,
) -> None:
    """Give all traffic and the alias champion back to the champion before.

    Example: liftlock rollback ticket-router
    """
    connected(start=False)
    from tasks.rollback import roll_back

    _say(roll_back(name, to, reason=reason), as_json)


def reconcile(
    name: Annotated[str | None, typer.Argument(help="Name of the registered model; else all in the ledger.")] = None,
    as_json: AsJson = False,
) -> None:
    """Compare MLflow's aliases with the ledger now, and settle what differs.

    Example: liftlock reconcile
    """
    connected(start=False)
    from dataclasses import asdict

    from tasks.ledger import promoter
    from tasks.reconcile import reconciler

    checker = reconciler(promoter())
    found = [one for model in ([name] if name else checker.models()) for one in checker.model(model)]
    if as_json:
        typer.echo(json.dumps([asdict(one) for one in found], indent=2))
        return
    for one in found:
        out.print(f"{one.model}@{one.alias}: {one.done}: {one.reason}")
    if not found:
        out.print("MLflow and the ledger agree")


def approve(
    run: Annotated[
        str, typer.Argument(help="A run, a Prefect flow run, or the model, as `liftlock approvals` shows it.")
    ],
    by: Annotated[str | None, typer.Option(help="Who approves; else the user of this process.")] = None,
    deny: Annotated[bool, typer.Option("--deny", help="Say no: the version stays where it is.")] = False,
    comment: Annotated[str, typer.Option(help="Written into the ledger.")] = "",
    as_json: AsJson = False,
) -> None:
    """Approve a move that waits for it. Who asked for it cannot. Exit 4 while more people have to.

    Example: liftlock approve ticket-router --by ada
    """
    connected(start=False)
    import getpass

    from tasks.approve import approvals as waiting
    from tasks.approve import resume

    found, person = waiting(), by or getpass.getuser()
    request = found.answer(found.find(run), person, not deny, comment)
    woken = resume(request, person, comment)
    line = request.line
    if as_json:
        document = {"model": line.model, "alias": line.alias, "version": line.to_version, "by": request.by,
                    "needed": request.needed, "denied": request.denied is not None, "resumed": woken}  # fmt: skip
        typer.echo(json.dumps(document, indent=2))
    else:
        said = f"denied by {person}" if request.denied else f"{len(request.by)} of {request.needed} approved"
        then = "; its flow run goes on" if woken else ""
        out.print(f"{line.model} version {line.to_version} to {line.alias}: {said}{then}")
    if not request.granted and not request.denied:
        raise typer.Exit(4)


def approvals(as_json: AsJson = False) -> None:
    """Show the moves that wait for people.

    Example: liftlock approvals
    """
    connected(start=False)
    from dataclasses import asdict

    from tasks.approve import approvals as waiting

    found = waiting().open()
    if as_json:
        typer.echo(json.dumps([asdict(one) for one in found], indent=2))
        return
    for one in found:
        line = one.line
        out.print(
            f"{line.evidence['run']}  {line.model} version {line.to_version} to {line.alias}, asked by {line.actor}; "
            f"{len(one.by)} of {one.needed} approved, until {line.evidence['expires']}"
        )
    if not found:
        out.print("nothing waits for approval")


def _say(done: Any, as_json: bool) -> None:
    from dataclasses import asdict

    if as_json:
        typer.echo(json.dumps(asdict(done), indent=2))
        return
    how = f"from version {done.from_version or 'none'}" if done.moved else "was there already"
    out.print(f"{done.model} version {done.to_version} is {done.alias}, {how}")


@ledger.command()
def verify(as_json: AsJson = False) -> None:
    """Recompute the ledger's chain of hashes, compare it with the journal and MLflow's tags. Exit 3 when something is wrong.

    Example: liftlock ledger verify
    """
    connected(start=False)
    from dataclasses import asdict

    from tasks.ledger import verify_ledger

    count, faults = verify_ledger()
    if as_json:
        document = {"lines": count, "intact": not faults, "faults": [asdict(fault) for fault in faults]}
        typer.echo(json.dumps(document, indent=2))
    else:
        for fault in faults:
            out.print(f"line {fault.id}: {fault.said}")
        out.print(f"{count} lines, {f'{len(faults)} faults' if faults else 'all intact'}")
    if faults:
        raise typer.Exit(3)
