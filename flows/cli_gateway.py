"""`liftlock apikey` and `liftlock trace`: who may ask the gateway, and where one request went."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from serving.gateway.state import Gateway

apikey = typer.Typer(
    help="API keys of the gateway's clients. Without any, everybody on this machine may ask.", no_args_is_help=True
)
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
Client = Annotated[str, typer.Argument(help="The client's name: it stands in the access log.")]
notes = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)


def register(app: typer.Typer) -> None:
    app.add_typer(apikey, name="apikey", rich_help_panel="Local stack")
    app.command(rich_help_panel="Local stack")(trace)


def _gateway() -> Gateway:
    from tasks.settings import get_settings
    from tasks.stack.addresses import addresses
    from tasks.stack.control import default_engine, gateway_of

    settings = get_settings()
    return gateway_of(settings, addresses(settings), default_engine(settings))


@apikey.command()
def add(
    client: Client,
    models: Annotated[
        str, typer.Option(help="Models that the key may ask for, separated by commas; left out: all.")
    ] = "",
    per_minute: Annotated[int | None, typer.Option(help="Requests a minute; left out: no limit.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and print it once. From the first key on nobody gets in without one.

    Example: liftlock apikey add billing --models ticket-router --per-minute 600
    """
    from tasks.gateway_keys import add_key

    allowed = [name.strip() for name in models.split(",") if name.strip()] or None

    def show(clear: str) -> None:
        typer.echo(json.dumps({"client": client, "key": clear}) if as_json else clear)

    add_key(_gateway(), client, allowed, per_minute, show)
    notes.print(f"the key of {client}: it is kept nowhere, so store it now. The gateway asks everybody for a key.")


@apikey.command("list")
def list_keys(as_json: AsJson = False) -> None:
    """Every client with a key: what it may ask for, and how often.

    Example: liftlock apikey list
    """
    from tasks.gateway_keys import clients

    found = clients(_gateway())
    if as_json:
        rows = [{name: value for name, value in asdict(key).items() if name != "sha256"} for key in found or ()]
        typer.echo(json.dumps({"required": found is not None, "keys": rows}, indent=2))
        return
    if found is None:
        typer.echo("no key is required; `liftlock apikey add NAME` makes the first one")
        return
    table = Table("client", "models", "a minute", "since", box=None, pad_edge=False)
    for key in found:
        models = "all" if key.models is None else ", ".join(key.models)
        table.add_row(key.client, models, "no limit" if key.per_minute is None else str(key.per_minute), key.created)
    Console(soft_wrap=True).print(table)


@apikey.command()
def revoke(client: Client) -> None:
    """Take a client's key back; its next request gets 401.

    Example: liftlock apikey revoke billing
    """
    from tasks.gateway_keys import revoke_key

    revoke_key(_gateway(), client)
    notes.print(f"the key of {client} is revoked")


@apikey.command()
def off() -> None:
    """Ask nobody for a key any more, and forget all keys.

    Example: liftlock apikey off
    """
    from tasks.gateway_keys import require_none

    require_none(_gateway())
    notes.print("no key is required any more; all keys are forgotten")


def trace(
    request: Annotated[str, typer.Argument(metavar="ID", help="x-request-id, traceparent, or the id of an answer.")],
    as_json: AsJson = False,
) -> None:
    """Find one request at every hop: the gateway's line, and what the engine wrote. Exit 3 where nobody knows it.

    Example: liftlock trace 0f3b6c1e-8a8e-4b7e-9d55-6f1c1f6f2a10
    """
    from serving.gateway.rotation import logs
    from serving.gateway.trace import trace as find
    from tasks.settings import get_settings

    state = get_settings().state
    engine = sorted((state / "logs").glob("vllm*.log*"), reverse=True)
    hops = find(request, logs(state / "gateway" / "access.log"), engine)
    if as_json:
        typer.echo(json.dumps([asdict(hop) for hop in hops], indent=2))
        return
    for hop in hops:
        typer.echo(f"{hop.place:<8} {hop.text}")
