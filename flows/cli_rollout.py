"""`liftlock rollout`: how a model's rollouts stand, and what a person says to one."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli_promotion import connected

if TYPE_CHECKING:
    from serving.delivery.target import ClusterTarget
    from serving.rollout.kept import Kept, Rollouts
    from tasks.settings import Settings

rollout = typer.Typer(help="Look at a canary, pause, resume or abort it.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="The model's name.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
Reason = Annotated[str, typer.Option("--reason", help="Kept with the rollout.")]


def _rollouts(name: str) -> Rollouts:
    from tasks.rollouts import rollouts_of
    from tasks.settings import get_settings

    return rollouts_of(get_settings(), name)


def _line(kept: Kept) -> str:
    state = kept.state
    said = (
        f"{kept.folder.name}  {state.phase}{' (paused)' if state.paused else ''}  {state.candidate} over {state.stable}"
    )
    if state.phase == "watching":
        said += f"  {max(state.hold_limit_seconds - state.held_seconds, 0):.0f} s left to decide"
    at = f"  step {state.step + 1} of {len(state.weights)}, {state.weight} % asked for"
    return f"{said}{at if state.rising else ''}  {state.reason}".rstrip()


def _say(text: str, as_json: bool) -> None:
    typer.echo(json.dumps({"said": text}) if as_json else text)


@rollout.command()
def status(
    name: Name,
    as_json: AsJson = False,
    watch: Annotated[bool, typer.Option("--watch", help="Stay, and show it as it goes, until it is over.")] = False,
) -> None:
    """The last rollout: phase, step, weight, and the steps that were decided, with their evidence.

    Example: liftlock rollout status ticket-router --watch
    """
    from rich.console import Console

    from flows.rollout_view import watch as show
    from serving.rollout.kept_steps import kept_steps
    from tasks.rollout_evidence import rows

    if watch and not as_json:
        return show(_rollouts(name), Console())
    rollouts = _rollouts(name)
    kept = rollouts.last()
    steps = kept_steps(kept)
    if as_json:
        return typer.echo(json.dumps({**asdict(kept.state), "steps": [asdict(step) for step in steps]}, indent=2))
    typer.echo(_line(kept))
    if not kept.state.over and not rollouts.driven():
        typer.echo(f"  nothing drives it: run its release again, or `liftlock rollout abort {name}`")
    if kept.state.way:
        typer.echo(f"  {kept.state.way}")
    for step in steps:
        typer.echo(f"  {step.weight} %  observed {step.observed_share:.1%}  {step.decision}: {step.reason}")
        for row in rows((step,)):
            typer.echo(
                f"      {row.metric:14} {row.candidate:>12} / {row.stable:<12} {row.interval:>22}  {row.decision}"
            )
    return None


@rollout.command()
def history(name: Name, as_json: AsJson = False) -> None:
    """Every rollout of the model, oldest first.

    Example: liftlock rollout history ticket-router
    """
    found = _rollouts(name).all()
    if as_json:
        typer.echo(json.dumps([{"number": kept.folder.name, **asdict(kept.state)} for kept in found], indent=2))
    else:
        typer.echo("\n".join(_line(kept) for kept in found) or f"{name} has no rollout yet")


@rollout.command()
def pause(name: Name, reason: Reason = "", as_json: AsJson = False) -> None:
    """No further step until it is resumed; a bad canary is undone all the same.

    Example: liftlock rollout pause ticket-router
    """
    from tasks.rollouts import tell

    _say(tell(_rollouts(name), "pause", reason), as_json)


@rollout.command()
def resume(name: Name, reason: Reason = "", as_json: AsJson = False) -> None:
    """Let a paused rollout go on.

    Example: liftlock rollout resume ticket-router
    """
    from tasks.rollouts import tell

    _say(tell(_rollouts(name), "resume", reason), as_json)


@rollout.command()
def abort(name: Name, reason: Reason = "aborted by hand", as_json: AsJson = False) -> None:
    """Give stable all of the traffic, whether or not the pipeline is still there.

    Example: liftlock rollout abort ticket-router
    """
    from tasks.place import end_unused
    from tasks.rollouts import abort as undo
    from tasks.rollouts import going
    from tasks.settings import get_settings
    from tasks.swap import ended, undo_target

    settings, rollouts = get_settings(), _rollouts(name)
    going(rollouts)  # before anything is read or made for it
    there = _cluster(settings, name)
    if there:
        return _say(undo(rollouts, there, reason), as_json)
    said = undo(rollouts, undo_target(settings, name), reason)
    if rollouts.last().state.over:  # else the pipeline that drives it ends its engine too
        end_unused(settings, name, rollouts.last().state.drain_seconds)
        ended(settings, name)
    return _say(said, as_json)


def _cluster(settings: Settings, name: str) -> ClusterTarget | None:
    """Where the model's last rollout was on a cluster."""
    from tasks.delivered import delivered_to, last_target

    if last_target(settings, name) == "local":
        return None
    connected(start=False)
    return delivered_to(settings, name)
