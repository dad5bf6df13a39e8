"""`liftlock drill`: deliberately bad releases, to show that the undo works on this stack."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from serving.rollout.faulty import Fault
    from tasks.drill import Drilled


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel="Release")(drill)


def drill(
    name: Annotated[str, typer.Argument(help="The model whose champion is stable in the drill.")],
    fault: Annotated[
        list[str] | None, typer.Option("--fault", help="One of them; may be given again. Default: all.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Run bad releases on purpose, under a model name that no client uses, and say whether each was undone.

    Example: liftlock drill ticket-router --fault slow
    """
    from serving.rollout.kept import Rollouts
    from tasks.drill import DrillFailed
    from tasks.drill import drill as run
    from tasks.settings import get_settings
    from tasks.stack.addresses import addresses
    from tasks.stack.control import default_engine, gateway_of

    faults, settings = _chosen(fault), get_settings()
    where = addresses(settings)
    rollouts = Rollouts(settings.state / "rollouts" / f"{name}-drill")
    found = run(
        gateway_of(settings, where, default_engine(settings)), where.gateway, rollouts, name, faults,
        lambda one: None if as_json else typer.echo(_line(one)),
    )  # fmt: skip
    if as_json:
        typer.echo(json.dumps([asdict(one) for one in found], indent=2))
    bad = [one.fault for one in found if not one.passed]
    if bad:
        raise DrillFailed(f"the drill failed for {', '.join(bad)}: see `liftlock rollout history {name}-drill`")


def _chosen(asked: list[str] | None) -> list[Fault]:
    from serving.rollout.faulty import FAULTS

    unknown = [one for one in asked or () if one not in FAULTS]
    if unknown:
        raise typer.BadParameter(f"{unknown[0]}; known: {', '.join(FAULTS)}", param_hint="--fault")
    return [one for one in FAULTS if not asked or one in asked]


def _line(one: Drilled) -> str:
    undone = f", undone {one.undo_seconds:.1f} s after the deciding request" if one.undo_seconds is not None else ""
    mark = "passed" if one.passed else "FAILED"
    return (
        f"{mark}  {one.fault:8} {one.outcome} after {one.candidate_requests} candidate requests{undone}: {one.reason}"
    )
