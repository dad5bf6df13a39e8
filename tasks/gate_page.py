"""The gate's page: one HTML file, light and dark, for a wide screen and a phone, that loads nothing from anywhere.

Values in, text out; only write_gate_page touches a file. The page has one script, for searching items, which its policy
names by its digest: text that a model or a pull request brought in cannot run. Without scripts all items are shown.
"""

from __future__ import annotations

import base64
import hashlib
from functools import lru_cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from evals import gate_sentences as words
from evals.gated import CHANGES, GatedChange, GatedSuite, ItemDiff, diff_cases, diff_items, slice_diffs
from tasks import gate_plots as plots
from tasks.artifacts import Outcome
from tasks.whole_file import write_whole

HERE = Path(__file__).parent
SHOWN = 2000  # items of one suite; the changed ones come first
CLIPPED = 600  # characters of one answer
TONES = {"passed": "good", "rejected": "bad", "inconclusive": "warn"}
CHANGE_TONES = {"newly failing": "bad", "newly passing": "good"}


def render_gate(change: GatedChange) -> str:
    """Equal changes give equal text."""
    script = (HERE / "gate_page.js").read_text(encoding="utf-8").strip()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        _environment()
        .get_template("gate_page.html.j2")
        .render(
            change=change, script=script, script_digest=digest, words=words, plots=plots, slice_diffs=slice_diffs,
            ordered=ordered, shown=SHOWN, changes=CHANGES, tiles=tiles,
        )
    )  # fmt: skip


def write_gate_page(folder: Path, outcome: Outcome) -> Path | None:
    """folder/gate.html of a release that came to a decision: the path over its blocks, and every item with both answers."""
    pair, decision = outcome.pair, outcome.decision
    if pair is None or decision is None:
        return None
    both = {item.id for item in pair.baseline.items}
    ids = [item.id for item in pair.candidate.items if item.id in both]
    metric = pair.candidate.metrics[0][0] if len(pair.candidate.metrics) == 1 else "the score"
    items, cases = diff_items(pair.candidate, pair.baseline, ids, {}), diff_cases(pair.candidate, pair.baseline)
    text = render_gate(GatedChange("", "", (GatedSuite(outcome.name, (), metric, decision, items, cases),)))
    path = folder / "gate.html"
    write_whole(path, text, "replace")
    return path


def ordered(one: GatedSuite) -> tuple[ItemDiff, ...]:
    """What changed first, and within it by slices, so that what fails together stands together."""
    return tuple(sorted(one.items, key=lambda item: (CHANGES.index(item.change), item.slices, item.id)))


def tiles(one: GatedSuite) -> tuple[tuple[str, str, str], ...]:
    """(name, value, note) of the numbers that a reader looks for first."""
    decision, rule = one.decision, one.comparison
    found = []
    if rule:
        found.append(("difference", words.signed(rule.estimate), f"interval {words.interval(rule)}"))
    share = decision.items_used / decision.items_available if decision.items_available else 0
    found.append(("items used", f"{decision.items_used}", f"{share:.0%} of {decision.items_available}"))
    fell, rose = len(decision.item_flips.newly_failing), len(decision.item_flips.newly_passing)
    found.append(("newly failing", f"{fell}", f"{rose} newly passing"))
    if decision.verdict == "inconclusive":
        found.append(("items needed", f"{decision.items_needed or '–'}", "in all, if the estimate stays"))
    return tuple(found)


def clip(text: str) -> str:
    return text if len(text) <= CLIPPED else f"{text[:CLIPPED]}…"


@lru_cache(maxsize=1)
def _environment() -> Environment:
    found = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,  # questions and answers are other people's text
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters.update(clip=clip, number=words.number, signed=words.signed)
    found.filters["tone"] = lambda verdict: TONES.get(verdict, "none")
    found.filters["change_tone"] = lambda kind: CHANGE_TONES.get(kind, "muted")
    return found
