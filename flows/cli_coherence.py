"""`liftlock coherence PATH…`: do limits, retries and drains nest from the client to the engine? Parsing and printing only."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

Paths = Annotated[
    list[Path], typer.Argument(metavar="PATH...", help="Manifests, Helm values, configurations: files or folders.")
]
ChainFile = Annotated[
    Path | None, typer.Option("--chain", metavar="FILE", help="A chain.yaml: clients, engine figures, suppressions.")
]
FixTo = Annotated[
    Path | None, typer.Option("--fix", metavar="DIR", help="Write a kustomize Component and Helm values that mend it.")
]
Budget = Annotated[
    str | None, typer.Option("--budget", metavar="TIME", help="With --fix: how long a client waits, such as 600s.")
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
AsSarif = Annotated[bool, typer.Option("--sarif", help="SARIF 2.1.0 on standard output.")]


class BadInput(Exception):
    """Options that do not go together."""


def coherence(
    paths: Paths,
    chain: ChainFile = None,
    fix_to: FixTo = None,
    budget: Budget = None,
    as_json: AsJson = False,
    as_sarif: AsSarif = False,
) -> None:
    """Check that time limits, retries, drains and queues nest from the client to the engine.

    It reads what it is given and touches no cluster. Exit 0: coherent; 3: findings; 2: bad input.

    Example: liftlock coherence manifests/ values.yaml --chain chain.yaml
    """
    from flows.coherence_output import document, text
    from serving.coherence.check import check
    from serving.coherence.sarif import sarif

    if as_json and as_sarif:
        raise BadInput("--json and --sarif are two documents; ask for one")
    if budget and fix_to is None:
        raise BadInput("--budget goes with --fix DIR")
    given = [*paths, *([chain] if chain else [])]
    if fix_to is not None:
        raise typer.Exit(_fix(given, fix_to, budget, as_json))
    checked = check(given, datetime.now(UTC).date())
    if as_sarif:
        typer.echo(json.dumps(sarif(checked), indent=2))
    else:
        typer.echo(json.dumps(document(checked), indent=2) if as_json else text(checked))
    raise typer.Exit(3 if checked.findings else 0)


def _fix(paths: list[Path], folder: Path, budget: str | None, as_json: bool) -> int:
    from flows.coherence_output import fixed_document, fixed_text
    from serving.coherence.duration import seconds
    from serving.coherence.fix import fix

    done = fix(paths, folder, None if budget is None else seconds(budget, "any", "--budget"))
    typer.echo(json.dumps(fixed_document(done), indent=2) if as_json else fixed_text(done, folder))
    return 3 if done.left else 0
