"""`liftlock gate --base REF --head REF`: the eval gate on a change in Git. Parsing and printing only."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli_gate import AsJson, gate

if TYPE_CHECKING:
    from evals.gated import GatedChange

__all__ = ["gate"]

Junit = Annotated[Path | None, typer.Option(metavar="FILE", help="Write JUnit XML.")]
Markdown = Annotated[Path | None, typer.Option(metavar="FILE", help="Write the pull request's comment.")]
Html = Annotated[Path | None, typer.Option(metavar="FILE", help="Write the report as one HTML page.")]


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
    from flows.gate_output import Wanted, tell

    if base is None:
        raise typer.BadParameter("--base is missing; give the branch that the change goes into, such as main")
    wanted = Wanted(as_json, junit, markdown, html)
    wanted.check()
    gated = _gate(repo, base, head, fork, endpoint, model)
    tell(gated, wanted)
    raise typer.Exit(gated.exit_code)


def _gate(repo: Path, base: str, head: str, fork: bool, endpoint: str | None, model: str | None) -> GatedChange:
    from rich.console import Console

    from tasks.asked import endpoint_of
    from tasks.pull_request import Asked, gate_change
    from tasks.settings import get_settings

    where = endpoint_of(get_settings(), endpoint, model, Console(stderr=True))
    return gate_change(Asked(repo, base, head, fork, where))
