"""`liftlock recall`: how well the right passage is found, and whether a change lost any of it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from tasks.recall import Measured
    from tasks.recall_answers import Answers

out = Console(soft_wrap=True, highlight=False, markup=False)
log = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
EXITS = {"passed": 0, "rejected": 3, "inconclusive": 4}


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel="Documents")(recall)


def recall(
    suite: Annotated[Path, typer.Argument(help="A folder with corpora/ and questions.jsonl.")],
    accept: Annotated[bool, typer.Option("--accept", help="Write the figures as the ones to hold to.")] = False,
    answers: Annotated[bool, typer.Option("--answers", help="Ask the served model all questions, too.")] = False,
    model: Annotated[str | None, typer.Option(help="With --answers: whom to ask; else the only one served.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Measure retrieval on questions with gold passages, and hold it to the figures accepted last.

    Exit 0 when not more than 0.03 of nDCG@10 is lost, 3 when some is shown to be lost, 4 when it cannot be told.

    Example: liftlock recall evals/documents
    """
    from tasks.rag import open_parts
    from tasks.recall import accept as write_accepted
    from tasks.recall import hold_to_accepted, measure
    from tasks.recall_answers import measure_answers
    from tasks.settings import get_settings

    with open_parts(get_settings()) as parts:
        measured = measure(parts, suite)
        answered = measure_answers(parts, suite, model, _progress) if answers else {}
    if accept:
        write_accepted(measured, suite)
    verdict, difference = hold_to_accepted(measured, suite)
    if as_json:
        said = {"answers": {name: asdict(one) for name, one in answered.items()}} if answers else {}
        found = {"verdict": verdict, "difference": asdict(difference), **asdict(measured), **said}
        typer.echo(json.dumps(found, indent=2))
    else:
        _print(measured)
        for name, one in answered.items():
            out.print(_answers_line(name, one))
        change = f"{difference.mean:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"
        out.print(f"{verdict}: nDCG@10 {change} against the accepted figures")
    raise typer.Exit(EXITS[verdict])


def _print(measured: Measured) -> None:
    columns = ("corpus", "questions", "search", "n", "recall@5", "recall@10", "nDCG@10", "MRR", "hybrid minus it")
    table = Table(*columns, box=None, pad_edge=False)
    for name, row in measured.figures.items():
        corpus, kind, mode = name.split("/")
        minus = measured.hybrid_minus.get(name)
        shown = f"{minus.mean:+.3f} [{minus.low:+.3f}, {minus.high:+.3f}]" if minus else ""
        values = (row.recall_5, row.recall_10, row.ndcg_10, row.mrr)
        table.add_row(corpus, kind, mode, str(row.questions), *(f"{value:.3f}" for value in values), shown)
    out.print(table)
    abstained = measured.abstained
    out.print(
        f"without a model's words: {abstained['unanswerable']:.0%} of the unanswerable and {abstained['answerable']:.0%} "
        f"of the answerable are not answered; {measured.quoted_right:.0%} of the quotes are from the gold passage"
    )


def _answers_line(name: str, found: Answers) -> str:
    """Shares of the questions, and the support rate of the model's own sentences."""
    share = {key: getattr(found, key) / max(1, found.questions) for key in ("answered", "quoted", "abstained")}
    gold = (
        f"; {found.from_gold} of {found.answered + found.quoted} cite the gold passage" if name == "answerable" else ""
    )
    return (
        f"{found.questions} {name}: {share['answered']:.0%} answered in the model's words, {share['quoted']:.0%} quoted, "
        f"{share['abstained']:.0%} abstained{gold}; {found.supported} of the model's {found.sentences} sentences are supported"
    )


def _progress(what: str, done: int, total: int) -> None:
    if log.is_terminal:
        log.print(f"\r  {what} {done} of {total}   ", end="")
