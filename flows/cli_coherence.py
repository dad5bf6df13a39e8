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
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
AsSarif = Annotated[bool, typer.Option("--sarif", help="SARIF 2.1.0 on standard output.")]


class BadInput(Exception):
    """Options that do not go together."""


def coherence(
    paths: Paths,
    chain: ChainFile = None,
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
    checked = check([*paths, *([chain] if chain else [])], datetime.now(UTC).date())
    if as_sarif:
        typer.echo(json.dumps(sarif(checked), indent=2))
    else:
        typer.echo(json.dumps(document(checked), indent=2) if as_json else text(checked))
    raise typer.Exit(3 if checked.findings else 0)
