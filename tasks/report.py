"""report.html: the page that a person opens after a release. One file, without scripts or outside resources.

Values in, text out; only write_report touches a file. What the release did not come to is left out and named.
Counting is in report_rows.py, plots are in report_plots.py, and the page itself is report.html.j2.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from statistics import fmean, median

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from evals.report import EvalReport
from serving.rollout.model import SideStats
from tasks import report_plots as plots
from tasks import report_rows as rows
from tasks import rollout_evidence as canary
from tasks.artifacts import Outcome, Rollout, StageRecord
from tasks.whole_file import write_whole

SHOWN = 100  # rows of one list of items or cases; all of them are in the eval report that the evidence names
NARROW_INTERVAL = 0.05  # below it two digits would hide the ends
CLIPPED = 400  # characters of one answer
TONES = {
    "champion": "good", "done": "good", "passed": "good", "completed": "good", "fits": "good", "go_on": "good", "kept": "good",
    "rejected": "bad", "failed": "bad", "does_not_fit": "bad", "undo": "bad", "broken": "bad",
    "inconclusive": "warn", "undone": "warn", "tight": "warn", "hold": "warn", "errored": "warn",
}  # fmt: skip
PARTS = {
    "dataset": "dataset", "adapter": "adapter", "pair": "eval reports", "decision": "gate decision",
    "version": "model version", "fit": "fit report", "modelcar": "modelcar", "rollout": "rollout",
    "sample": "RAG answers",
}  # fmt: skip
Tile = tuple[str, str, str]  # name, value, what it is compared with


def write_report(folder: Path, outcome: Outcome) -> Path:
    """folder/report.html, which appears whole. Raises OSError."""
    path = folder / "report.html"
    write_whole(path, render_report(outcome), "replace")
    return path


def render_report(outcome: Outcome) -> str:
    """The page. Equal outcomes give equal text."""
    template = _environment().get_template("report.html.j2")
    return template.render(
        o=outcome, rows=rows, plots=plots, canary=canary, shown=SHOWN, missing=missing(outcome), **told(outcome)
    )


def told(outcome: Outcome) -> dict[str, object]:
    """The sentences and numbers at the top of the page."""
    return {
        "headline": headline(outcome),
        "champion": champion_sentence(outcome),
        "tiles": tiles(outcome),
        "against": against(outcome),
    }


def headline(outcome: Outcome) -> str:
    """One sentence: name and version, what became of it, where, and the key number."""
    number = outcome.version.version if outcome.version else None
    subject = f"{outcome.name} version {number}" if number else outcome.name
    key, gate_spoke = key_number(outcome), outcome.decision and outcome.decision.verdict != "passed"
    link = ": " if outcome.verdict == "champion" or gate_spoke else "; it scored "
    return f"{subject} {_ending(outcome)}{link + key if key else ''}."


def _ending(outcome: Outcome) -> str:
    if outcome.verdict == "champion":
        return "is champion"
    if outcome.verdict == "undone":
        return f"was undone {_last_weight(outcome.rollout)}"
    said = {"rejected": "was rejected", "inconclusive": "is inconclusive", "failed": "failed"}[outcome.verdict]
    stage = stopped_at(outcome)
    return f"{said} at {stage.name}" if stage else f"{said} before its first stage"


def _last_weight(rollout: Rollout | None) -> str:
    return f"at {rollout.steps[-1].weight} % of the traffic" if rollout and rollout.steps else "at the warm-up"


def stopped_at(outcome: Outcome) -> StageRecord | None:
    """The stage that ended the release; the last one where each says done."""
    return next((stage for stage in reversed(outcome.stages) if stage.status != "done"), (*outcome.stages, None)[-1])


def key_number(outcome: Outcome) -> str:
    """Such as "0.91 on 320 items, +0.91 [0.87, 0.94] over the base model"; empty before the evaluation."""
    said = []
    if pair := outcome.pair:
        said.append(f"{mean_score(pair.candidate):.2f} on {pair.candidate.n} items")
    if rule := rows.difference_rule(outcome.decision):
        digits = 2 if rule.high - rule.low >= NARROW_INTERVAL else 3
        interval = f"[{number(rule.low, digits)},\u00a0{number(rule.high, digits)}]"
        side = "over" if rule.estimate > 0 else "against"
        said.append(f"{signed(rule.estimate, digits)}\u00a0{interval} {side} {against(outcome)}")
    return ", ".join(said)


def against(outcome: Outcome) -> str:
    if outcome.pair:
        return f"version {outcome.pair.baseline_version}" if outcome.pair.baseline_version else "the base model"
    return outcome.decision.baseline if outcome.decision else "the baseline"


def champion_sentence(outcome: Outcome) -> str:
    """Who is champion now, and whether this release changed it."""
    if outcome.champion is None:
        return "No version is champion: nothing was promoted."
    if outcome.version and outcome.champion == outcome.version.version:
        return f"Champion is now version {outcome.champion}."
    return f"Champion is unchanged: version {outcome.champion}."


def missing(outcome: Outcome) -> tuple[str, ...]:
    """What this release did not make."""
    return tuple(name for field, name in PARTS.items() if getattr(outcome, field) is None)


def tiles(outcome: Outcome) -> tuple[Tile, ...]:
    """The numbers that a reader looks for first, as far as there are any."""
    return (*_score_tiles(outcome), *_serving_tiles(outcome), _time_tile(outcome))


def _score_tiles(outcome: Outcome) -> tuple[Tile, ...]:
    pair = outcome.pair
    if not pair:
        return ()
    score, before = mean_score(pair.candidate), f"{mean_score(pair.baseline):.3f} with {against(outcome)}"
    found: list[Tile] = [(rows.metric_of(pair.candidate, score), f"{score:.3f}", before)]
    if rule := rows.difference_rule(outcome.decision):
        interval = f"interval {number(rule.low, 3)} to {number(rule.high, 3)}"
        found.append(("difference", signed(rule.estimate, 3), interval))
    counts, baseline = pair.candidate.assertions, pair.baseline.assertions
    if pair.candidate.cases:
        total = len(pair.candidate.cases)
        found.append(("promptfoo cases", f"{counts.passed} of {total}", f"{baseline.passed} with {against(outcome)}"))
    return tuple(found)


def _serving_tiles(outcome: Outcome) -> tuple[Tile, ...]:
    found: list[Tile] = []
    if fit := outcome.fit:
        margin = f"{mebibytes(fit.headroom_bytes)} ± {mebibytes(fit.uncertainty_bytes)} headroom"
        found.append((f"fit on {fit.gpu}", fit.verdict.replace("_", " "), margin))
    if rollout := outcome.rollout:
        sides = [side for step in rollout.steps for side in (step.stable, step.candidate)]
        requests, errors = sum(side.requests for side in sides), sum(side.errors for side in sides)
        found.append(("canary", rollout.outcome, f"{requests} requests, {errors} failed"))
    return tuple(found)


def _time_tile(outcome: Outcome) -> Tile:
    cached = sum(stage.cached for stage in outcome.stages)
    count = f"{len(outcome.stages)} stage{'s' if len(outcome.stages) != 1 else ''}"
    return "time", duration(sum(stage.seconds for stage in outcome.stages)), f"{count}, {cached} from the cache"


def mean_score(report: EvalReport) -> float:
    return fmean(item.score for item in report.items)


def number(value: float, digits: int = 2) -> str:
    """With a real minus sign, and no minus before zero."""
    return f"{value:z.{digits}f}".replace("-", "−")


def signed(value: float, digits: int = 2) -> str:
    return f"{value:+z.{digits}f}".replace("-", "−")


def duration(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f} s" if seconds >= 0.1 else "< 0.1 s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def size(count: int) -> str:
    """Bytes in the largest binary unit that they fill."""
    for power, unit in ((3, "GiB"), (2, "MiB"), (1, "KiB")):
        if abs(count) >= 1024**power:
            return f"{count / 1024**power:.{2 if power == 3 else 1}f} {unit}"
    return f"{count} B"


def mebibytes(count: int) -> str:
    return f"{count / 1024**2:,.0f} MiB".replace("-", "−")


def short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]


def clip(text: str) -> str:
    return text if len(text) <= CLIPPED else f"{text[:CLIPPED]}…"


def first_token(side: SideStats) -> str:
    """The median in milliseconds."""
    return f"{1000 * median(side.first_token_seconds):.0f} ms" if side.first_token_seconds else "–"


@lru_cache(maxsize=1)
def _environment() -> Environment:
    found = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # answers and tickets are other people's text
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    named = (number, signed, duration, size, mebibytes, short, clip, first_token, mean_score)
    found.filters.update({function.__name__: function for function in named})
    found.filters["tone"] = lambda status: TONES.get(status, "none")
    return found
