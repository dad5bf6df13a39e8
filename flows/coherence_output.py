"""What `liftlock coherence` prints: findings with reason and change, the longest answer of each alias, notes; and the JSON document."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from serving.coherence.answer import Answer, answer
from serving.coherence.check import Checked, Grouped
from serving.coherence.duration import shown
from serving.coherence.findings import RULES
from serving.coherence.fix import Fixed
from serving.coherence.probe import Observed


def text(checked: Checked) -> str:
    lines: list[str] = []
    for each in checked.findings:
        lines += [_head(each), f"    {each.finding.message}", f"    why     {RULES[each.finding.rule].why}"]
        lines += [f"    change  {each.finding.change}", f"    at      {_place(each)}", ""]
    lines += _answers(checked)
    lines += ["", *(f"note: {each}" for each in checked.notes)] if checked.notes else []
    found, dropped = len(checked.findings), len(checked.suppressed)
    verdict = f"incoherent: {_counted(found, 'finding')}" if found else "coherent"
    read = f"{_counted(len(checked.chains), 'chain')} from {_counted(checked.inventory.files, 'file')}"
    lines += ["", f"{verdict}{f', {dropped} suppressed' if dropped else ''} ({read})"]
    return "\n".join(lines)


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _head(each: Grouped) -> str:
    who = ", ".join(each.aliases) + (f" from {', '.join(each.clients)}" if each.clients else "")
    return f"{each.finding.rule}  {who}{'  (implicit)' if each.finding.implicit else ''}"


def _place(each: Grouped) -> str:
    at = each.finding.at
    return f"{at.file}:{at.line}  {at.where}" if at.file else at.where


def _answers(checked: Checked) -> list[str]:
    """Clients of one alias with the same answer share a line."""
    lines: dict[tuple[str, str, str], list[str]] = {}
    for chain in checked.chains:
        one = answer(chain)
        worst = f"worst case {shown(one.worst_seconds)}, {one.worst_tries} requests at the engine for one"
        lines.setdefault((one.alias, one.sentence(), worst), []).append(one.client)
    return [
        f"{alias} ({', '.join(dict.fromkeys(clients))}): {said}; {worst}"
        for (alias, said, worst), clients in lines.items()
    ]


def document(checked: Checked) -> dict[str, Any]:
    return {
        "coherent": not checked.findings,
        "findings": [_finding(each) for each in checked.findings],
        "suppressed": [_finding(each) for each in checked.suppressed],
        "answers": [_answer(answer(chain)) for chain in checked.chains],
        "notes": list(checked.notes),
        "files": checked.inventory.files,
    }


def _finding(each: Grouped) -> dict[str, Any]:
    one, rule = each.finding, RULES[each.finding.rule]
    return {
        "rule": one.rule, "title": rule.title, "aliases": list(each.aliases), "clients": list(each.clients), "hop": one.hop,
        "message": one.message, "why": rule.why, "change": one.change, "implicit": one.implicit,
        "file": one.at.file, "line": one.at.line, "where": one.at.where,
    }  # fmt: skip


def _answer(one: Answer) -> dict[str, Any]:
    return {**asdict(one), "cut_at": {"seconds": one.cut_at.value, "where": one.cut_at.where, "implicit": one.cut_at.implicit},
            "worst_seconds": None if math.isinf(one.worst_seconds) else one.worst_seconds, "sentence": one.sentence()}  # fmt: skip


def fixed_text(done: Fixed, folder: Path) -> str:
    lines = [f"from a budget of {shown(done.budget)}, written to {folder}:", *(f"  {step}" for step in done.steps)]
    for each in done.left:
        lines += [
            "",
            "no manifest can mend:",
            _head(each),
            f"    {each.finding.message}",
            f"    change  {each.finding.change}",
        ]
    next_step = f"check it: liftlock coherence PATH… {folder}"
    return "\n".join([*lines, "", next_step])


def fixed_document(done: Fixed) -> dict[str, Any]:
    return {"budget": done.budget, "steps": list(done.steps), "left": [_finding(each) for each in done.left]}


def probed_text(rows: list[Observed]) -> str:
    """One line a kind: observed beside declared."""
    lines = [f"{'upstream':<26}{'seconds':>9}{'declared':>10}{'requests':>10}{'declared':>10}  outcome"]
    for row in rows:
        declared = "" if row.declared_seconds is None else f"{row.declared_seconds:.1f}"
        wanted = "" if row.declared_requests is None else str(row.declared_requests)
        verdict = "" if row.agrees else "  DISAGREES"
        lines.append(
            f"{row.kind:<26}{row.seconds:>9.1f}{declared:>10}{row.requests:>10}{wanted:>10}  {row.outcome}{verdict}"
        )
    return "\n".join(lines)
