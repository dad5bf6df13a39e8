"""`liftlock coherence PATH…`: do limits, retries and drains nest from the client to the engine? Parsing and printing only."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from serving.coherence.check import Checked

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
Picture = Annotated[
    Path | None,
    typer.Option("--picture", metavar="FILE.svg", help="Draw the nested budgets of every chain; in the terminal too."),
]
Live = Annotated[
    str | None, typer.Option("--live", metavar="URL", help="Probe a running chain, from its front (with /v1).")
]
At = Annotated[
    str | None,
    typer.Option(
        "--upstream",
        metavar="HOST:PORT",
        help="With --live: where the chain's engine should be; the probe listens there.",
    ),
]
ModelName = Annotated[str | None, typer.Option("--model", help="With --live: the alias that leads to the upstream.")]
Patience = Annotated[str, typer.Option("--patience", metavar="TIME", help="With --live: the probe's own limit.")]
Released = Annotated[
    str | None,
    typer.Option(
        "--release", metavar="NAME", help="Take the engine's figures from the record of the model's champion."
    ),
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
    picture: Picture = None,
    live: Live = None,
    upstream: At = None,
    model: ModelName = None,
    patience: Patience = "60s",
    release: Released = None,
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
    if live is not None:
        raise typer.Exit(_live(given, live, upstream, model, patience, as_json))
    if fix_to is not None:
        raise typer.Exit(_fix(given, fix_to, budget, as_json))
    checked = check(given, datetime.now(UTC).date(), [_measured(release)] if release else [])
    if picture is not None:
        _draw(checked, picture)
    if as_sarif:
        typer.echo(json.dumps(sarif(checked), indent=2))
    else:
        typer.echo(json.dumps(document(checked), indent=2) if as_json else text(checked))
    raise typer.Exit(3 if checked.findings else 0)


def _measured(name: str) -> tuple[str, dict[str, Any]]:
    from flows.cli_promotion import connected
    from serving.coherence.measured import figures_of
    from tasks.champion_report import champion_rollout

    connected(start=False)
    return f"release record of {name}", figures_of(name, champion_rollout(name))


def _fix(paths: list[Path], folder: Path, budget: str | None, as_json: bool) -> int:
    from flows.coherence_output import fixed_document, fixed_text
    from serving.coherence.duration import seconds
    from serving.coherence.fix import fix

    done = fix(paths, folder, None if budget is None else seconds(budget, "any", "--budget"))
    typer.echo(json.dumps(fixed_document(done), indent=2) if as_json else fixed_text(done, folder))
    return 3 if done.left else 0


def _live(paths: list[Path], url: str, where: str | None, model: str | None, patience: str, as_json: bool) -> int:
    from dataclasses import asdict

    from flows.coherence_output import probed_text
    from serving.coherence.chains import chains
    from serving.coherence.duration import seconds
    from serving.coherence.objects import read_paths
    from serving.coherence.probe import Probe
    from serving.coherence.probe_engine import upstream as listening

    host, _, port = (where or "").rpartition(":")
    if not host or not port.isdecimal() or not model:
        raise BadInput("--live needs --upstream HOST:PORT, where the probe listens as the engine, and --model ALIAS")
    chain = next((each for each in chains(read_paths(paths)) if each.alias == model), None)
    if chain is None:
        raise BadInput(
            f"no chain of alias {model!r} in these files; name it as the router does, or write its hops into a chain.yaml"
        )
    with listening(host, int(port)) as engine:
        key = os.environ.get("LIFTLOCK_PROBE_KEY")
        rows = Probe(url, model, key, engine, chain, seconds(patience, "any", "--patience")).all()
    typer.echo(json.dumps([asdict(row) for row in rows], indent=2) if as_json else probed_text(rows))
    return 0 if all(row.agrees for row in rows) else 3


def _draw(checked: Checked, file: Path) -> None:
    """The picture to the file, and its lines to standard error, so that documents on standard output stay whole."""
    from serving.coherence.picture import svg, terminal

    if not file.parent.is_dir():
        raise BadInput(f"{file}: no such folder; make it, or name another file")
    file.write_text(svg(checked.chains))
    for chain in checked.chains:
        typer.echo("\n".join(terminal(chain)), err=True)
