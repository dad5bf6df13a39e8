"""`liftlock gate`: compare two files of results, plan how many items a margin needs, and measure the noise of two runs.

Parsing and printing only; the work is in evals.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from evals.gate_policy import GatePolicy
    from evals.noise import NoiseFloor

gate = typer.Typer(help="Compare two models' results, item by item, with proven error rates.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
Alpha = Annotated[float, typer.Option(min=1e-6, max=0.5, help="Highest chance of a false promotion.")]
Metric = Annotated[
    str | None, typer.Option(help="Key of the score; for lm-eval with its filter, as exact_match,strict.")
]
Margin = Annotated[float | None, typer.Option("--non-inferior", metavar="MARGIN", help="At most this much worse.")]
Junit = Annotated[Path | None, typer.Option(metavar="FILE", help="Write JUnit XML.")]
Markdown = Annotated[Path | None, typer.Option(metavar="FILE", help="Write the pull request's comment.")]
Html = Annotated[Path | None, typer.Option(metavar="FILE", help="Write the report as one HTML page.")]
DEFAULT_BLOCK = 8


@gate.command()
def compare(
    baseline: Annotated[Path, typer.Argument(help="Results of the baseline.")],
    candidate: Annotated[Path, typer.Argument(help="Results of the candidate, on the same items.")],
    metric: Metric = None,
    superior: Annotated[bool, typer.Option("--superior", help="The candidate must be better (the default).")] = False,
    non_inferior: Margin = None,
    floor: Annotated[float | None, typer.Option(help="The candidate's own lower bound must lie above this.")] = None,
    alpha: Alpha = 0.05,
    cluster: Annotated[str | None, typer.Option(metavar="KEY", help="Items with one value belong together.")] = None,
    sequential: Annotated[bool, typer.Option("--sequential", help="Look after every block; stop when clear.")] = False,
    block: Annotated[int, typer.Option(min=1, help="Items between two looks, with --sequential.")] = DEFAULT_BLOCK,
    seed: Annotated[int, typer.Option(min=0, help="Of the random order, with --sequential.")] = 0,
    junit: Junit = None,
    markdown: Markdown = None,
    html: Html = None,
    as_json: AsJson = False,
) -> None:
    """Judge a candidate's results against a baseline's: JSON lines, lm-eval samples or promptfoo output.

    Example: liftlock gate compare baseline.jsonl candidate.jsonl --non-inferior 0.05 --sequential
    """
    from evals.gate_compare import as_change, document
    from evals.gate_compare import compare as judge
    from evals.gate_policy import EXIT_CODES
    from evals.results_files import read_results
    from flows.gate_output import Wanted, write_files

    wanted = Wanted(as_json, junit, markdown, html)
    wanted.check()
    policy = _policy(superior, non_inferior, floor, alpha, cluster, block if sequential else 0, seed)
    sides = [read_results(path, metric, cluster) for path in (baseline, candidate)]
    named = type(policy)(**{**asdict(policy), "metric": sides[1].metric, "slices": ()})
    compared = judge(sides[0], sides[1], named)
    write_files(as_change(compared, sides[0], sides[1], named), wanted)
    if as_json:
        typer.echo(json.dumps(document(compared), indent=2))
    else:
        typer.echo("\n".join((f"{compared.verdict}: {compared.reasons[0]}", *compared.reasons[1:])))
    raise typer.Exit(EXIT_CODES[compared.verdict])


def _policy(
    superior: bool, margin: float | None, floor: float | None, alpha: float, cluster: str | None, block: int, seed: int
) -> GatePolicy:
    from evals.gate_policy import GatePolicy

    if superior and margin is not None:
        raise typer.BadParameter("--superior and --non-inferior were both given; choose one")
    try:
        return GatePolicy(
            rule="superior" if margin is None else "non_inferior",
            margin=margin or 0.0,
            alpha=alpha,
            floor=floor or 0.0,
            min_items=2,
            cluster=cluster or "",
            block=block,
            seed=seed,
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


@gate.command()
def plan(
    margin: Annotated[float, typer.Option(min=1e-4, max=0.999, help="The difference that must be shown.")] = 0.05,
    baseline: Annotated[Path | None, typer.Option(metavar="FILE", help="A run of the baseline.")] = None,
    again: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A second run, of the baseline or of a model like the next one.")
    ] = None,
    rate: Annotated[float | None, typer.Option(min=0.001, max=0.999, help="Share of right answers.")] = None,
    correlation: Annotated[float, typer.Option(min=0.0, max=0.999, help="Between the two models' answers.")] = 0.5,
    items: Annotated[int | None, typer.Option(min=1, help="Items of the suite at hand.")] = None,
    alpha: Alpha = 0.05,
    power: Annotated[float, typer.Option(min=0.5, max=0.999, help="Chance to show it.")] = 0.95,
    metric: Metric = None,
    as_json: AsJson = False,
) -> None:
    """Say before anything is run how many items a margin needs, and what the suite at hand can show.

    Example: liftlock gate plan --margin 0.05 --rate 0.8 --correlation 0.4 --items 320
    """
    from evals.power import plan as plan_items

    deviation, told, at_hand = _deviation(baseline, again, rate, correlation, metric)
    try:
        found = plan_items(deviation, told, effect=margin, alpha=alpha, power=power, items_at_hand=items or at_hand)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    typer.echo(json.dumps(asdict(found), indent=2) if as_json else "\n".join(found.reasons))


@gate.command("aa")
def a_a(
    first: Annotated[Path, typer.Argument(help="Results of a run.")],
    second: Annotated[Path, typer.Argument(help="Results of the same model on the same items, run again.")],
    margin: Annotated[float | None, typer.Option(min=1e-4, max=0.999, help="Margin to hold against the noise.")] = None,
    alpha: Alpha = 0.05,
    metric: Metric = None,
    as_json: AsJson = False,
) -> None:
    """Measure the noise floor from two runs of one model; a margin below it is refused with exit code 3.

    Example: liftlock gate aa first.jsonl second.jsonl --margin 0.05
    """
    from evals.noise import noise_floor
    from evals.results_files import means_by_id, read_results

    sides = [means_by_id(read_results(path, metric, None)) for path in (first, second)]
    tell_noise(noise_floor(sides[0], sides[1], alpha), margin, as_json)


def tell_noise(floor: NoiseFloor, margin: float | None, as_json: bool) -> None:
    """Ends the command: exit code 3 where the margin lies below the floor."""
    refused = margin is not None and not floor.allows(margin)
    told = f"{len(floor.flipped)} of {floor.items} items differ between the runs; margins from {floor.smallest_margin:.4f} on mean something."
    if refused:
        told += f" {margin:g} lies below: noise alone can shift the mean by as much. Take a wider margin or more items."
    document = {**asdict(floor), "margin": margin, "allowed": None if margin is None else not refused}
    typer.echo(json.dumps(document, indent=2) if as_json else told)
    raise typer.Exit(3 if refused else 0)


def _deviation(
    baseline: Path | None, again: Path | None, rate: float | None, correlation: float, metric: str | None
) -> tuple[float, str, int | None]:
    """(deviation of a difference per item, where it is from, items at hand)."""
    from statistics import fmean

    from evals.gate_compare import pair_results
    from evals.power import paired_deviation, run_to_run_deviation
    from evals.results_files import ResultsInvalid, numbers_by_id, read_results

    if baseline is None:
        if rate is None or again is not None:
            raise typer.BadParameter("give --baseline FILE (and --again FILE for a second run), or --rate")
        return paired_deviation(rate, correlation), f"from rate {rate:g} and correlation {correlation:g}", None
    first = read_results(baseline, metric, None)
    if again is not None:
        pairs = pair_results(first, read_results(again, metric, None))
        if len(pairs) < 2:
            raise ResultsInvalid(f"{baseline} has one item; a deviation needs two")
        found = run_to_run_deviation([pair.baseline for pair in pairs], [pair.candidate for pair in pairs])
        return found, "from the two runs", len(pairs)
    scores = [fmean(values) for _, values in numbers_by_id(first)]
    mean = min(0.999, max(0.001, fmean(scores)))
    told = f"from the baseline's rate {mean:.3f} and correlation {correlation:g}"
    return paired_deviation(mean, correlation), told, len(scores)
