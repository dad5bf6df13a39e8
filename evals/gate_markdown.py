"""A gated change as the Markdown of a pull request's comment. Pure.

The first line is a marker, by which the comment is found and replaced. Answers are other people's text: they stand escaped
inside <code>, where neither Markdown, HTML nor an @mention has a meaning.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from evals.gate_policy import RuleResult, Verdict
from evals.gate_sentences import change_headline, commits, estimate, headline, interval, number, required
from evals.gated import COMPARISONS, GatedChain, GatedChange, GatedSuite, ItemDiff

MARKER = "<!-- liftlock eval gate -->"
MOST_BYTES = 60_000  # GitHub takes 65,536 characters
MOST_ITEMS = 40  # of one list
CLIPPED = 160  # characters of an answer
ENTITIES = {ord(mark): f"&#{ord(mark)};" for mark in "&<>|`*_[]~#\\@"}
SIGNS: dict[Verdict, str] = {"passed": "✅", "rejected": "❌", "inconclusive": "❔"}


def to_markdown(change: GatedChange, most_bytes: int = MOST_BYTES) -> str:
    """Where it would be too long, the item lists become shorter; tables and reasons stay."""
    for most in (MOST_ITEMS, 10, 3, 0):
        text = _text(change, most)
        if len(text.encode()) <= most_bytes:
            return text
    return f"{text.encode()[:most_bytes].decode(errors='ignore')}…\n"


def _text(change: GatedChange, most: int) -> str:
    parts = [MARKER, f"### {SIGNS[change.verdict]} Eval gate: {change.verdict}", _plain(change_headline(change))]
    parts += [f"> {_plain(note)}" for note in change.notes]
    for chain in change.chains:
        parts += _chain(chain)
    for one in change.suites:
        parts += _suite(one, most, titled=len(change.suites) + len(change.chains) > 1)
    if change.base:
        parts.append(
            f"<sub>{commits(change)}, asked by `liftlock gate`; this comment is replaced by the next run.</sub>"
        )
    return "\n\n".join(parts) + "\n"


def _chain(one: GatedChain) -> list[str]:
    sentences = "\n".join(f"- {_plain(sentence)}" for sentence in (*one.new[:MOST_ITEMS], *one.notes))
    left = len(one.new) - MOST_ITEMS
    more = [f"{left} more are in the report."] if left > 0 else []
    return [f"#### {SIGNS[one.verdict]} {_plain(one.headline)}", *([sentences] if sentences else []), *more]


def _suite(one: GatedSuite, most: int, titled: bool) -> list[str]:
    decision = one.decision
    parts = [f"#### {SIGNS[decision.verdict]} {_plain(headline(one))}"] if titled else []
    touched = f"Touched: {', '.join(one.touched)}. " if one.touched else ""
    asked = "The baseline's results were reused." if one.reused else "Both sides were asked."
    parts += [f"{touched}{asked}", _table(one)]
    parts += ["\n".join(f"- {_plain(sentence)}" for sentence in (*decision.reasons, *one.notes))]
    if decision.always_failing:
        parts.append(f"Failing in every repeat: {', '.join(map(_code, decision.always_failing))}.")
    fell, rose = one.changed("newly failing"), one.changed("newly passing")
    cases = tuple(case for case in one.cases if case.change == "newly failing")
    for title, found in (("newly failing", fell), ("newly failing cases", cases), ("newly passing", rose)):
        parts += _details(title, found, most)
    return parts


def _table(one: GatedSuite) -> str:
    """Baseline and candidate are mean scores of the items used where the rule compares; else the candidate's own value."""
    rows = [
        "| rule | baseline | candidate | difference | required | items used | verdict |",
        "|---|--:|--:|--:|---|--:|---|",
    ]
    for rule in one.decision.rules:
        items = f"{rule.items_used} of {rule.items_available}" if rule.items_available else ""
        cells = (_plain(rule.label.replace("_", " ")), *_sides(one, rule), required(rule), items)
        rows.append(f"| {' | '.join(cells)} | {SIGNS[rule.verdict]} {rule.verdict} |")
    return "\n".join(rows)


def _sides(one: GatedSuite, rule: RuleResult) -> tuple[str, str, str]:
    """Mean scores of both sides, and the estimate with its interval."""
    told = f"{estimate(rule)} {interval(rule)}".strip()
    if rule.name not in COMPARISONS:
        return "", told, ""
    items = one.items_of(rule)
    if not items:
        return "", "", told
    sides = ([getattr(item, f"{side}_score") for item in items] for side in ("baseline", "candidate"))
    before, after = (number(fmean(scores)) for scores in sides)
    return before, after, told


def _details(title: str, items: Sequence[ItemDiff], most: int) -> list[str]:
    if not items:
        return []
    shown = sorted(items, key=lambda item: (item.slices, item.id))[:most]
    rows = [
        f"| {_code(item.id)} | {_plain(', '.join(value for _, value in item.slices))} | {_code(item.target)} "
        f"| {_code(item.baseline_answer)} | {_code(item.candidate_answer)} |"
        for item in shown
    ]
    left = f"\n\n{len(items) - len(shown)} more are in the report." if len(items) > len(shown) else ""
    table = (
        "\n".join(("| item | slices | target | baseline | candidate |", "|---|---|---|---|---|", *rows)) if rows else ""
    )
    return [f"<details><summary>{len(items)} {title}</summary>\n\n{table}{left}\n\n</details>"]


def _code(text: str) -> str:
    clipped = text if len(text) <= CLIPPED else f"{text[:CLIPPED]}…"
    return f"<code>{_plain(clipped)}</code>" if clipped else "(empty)"


def _plain(text: str) -> str:
    """On one line, with nothing in it that Markdown, HTML or a table would read as a mark."""
    return " ".join(text.split()).translate(ENTITIES)
