"""`liftlock gate --base REF --head REF`: the eval gate on a change in Git. Parsing and printing only."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli_gate import AsJson, Html, Junit, Markdown, gate, tell_noise

if TYPE_CHECKING:
    from evals.gated import GatedChange

__all__ = ["gate"]


@gate.callback(invoke_without_command=True)
def change(
    ctx: typer.Context,
    base: Annotated[str | None, typer.Option(metavar="REF", help="The branch that the change goes into.")] = None,
    head: Annotated[str, typer.Option(metavar="REF", help="The change.")] = "HEAD",
    repo: Annotated[Path, typer.Option(help="The Git repository with the suites.")] = Path(),
    fork: Annotated[bool, typer.Option("--fork", help="Take only data from the head: no code, no rule.")] = False,
    endpoint: Annotated[
        str | None, typer.Option(metavar="URL", help="OpenAI endpoint, with /v1. Default: the local stack's vLLM.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Served model, where no adapter.yaml names one. Default: the release's name.")
    ] = None,
    aa: Annotated[
        Path | None, typer.Option("--aa", metavar="SPEC", help="Ask the baseline of a release.yaml twice: the noise.")
    ] = None,
    junit: Junit = None,
    markdown: Markdown = None,
    html: Html = None,
    as_json: AsJson = False,
) -> None:
    """Gate a change in Git, or compare results and plan a suite with the commands below.

    Example: liftlock gate --base main --head my-branch --markdown comment.md
    """
    if ctx.invoked_subcommand:
        return
    if aa is not None:
        _ask_twice(aa, endpoint, model, as_json)
    from flows.gate_output import Wanted, tell

    if base is None:
        raise typer.BadParameter("--base is missing; give the branch that the change goes into, such as main")
    wanted = Wanted(as_json, junit, markdown, html)
    wanted.check()
    gated = _gate(repo, base, head, fork, endpoint, model)
    tell(gated, wanted)
    raise typer.Exit(gated.exit_code)


def _ask_twice(spec_file: Path, endpoint: str | None, model: str | None, as_json: bool) -> None:
    """Ends the command, as `gate aa` does. Without an endpoint the local stack's champion, or its base, is the baseline."""
    from rich.console import Console

    from flows.cli_promotion import connected
    from tasks.asked import endpoint_of
    from tasks.settings import get_settings
    from tasks.spec import load_release

    spec = load_release(spec_file, ("gate", "dataset.test"))
    where = endpoint_of(get_settings(), endpoint, model, Console(stderr=True))
    if model is None and endpoint is None:
        connected(start=False)
    from tasks.noise import measure_noise

    tell_noise(measure_noise(spec, where), spec.gate.margin or None, as_json)


def _gate(repo: Path, base: str, head: str, fork: bool, endpoint: str | None, model: str | None) -> GatedChange:
    from rich.console import Console

    from tasks.asked import endpoint_of
    from tasks.pull_request import Asked, gate_change
    from tasks.settings import get_settings

    where = endpoint_of(get_settings(), endpoint, model, Console(stderr=True))
    return gate_change(Asked(repo, base, head, fork, where))
