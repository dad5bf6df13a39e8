"""What a gated change says in words: one sentence a suite, and numbers as people read them. Pure."""

from __future__ import annotations

from evals.gate_policy import SEVERITY, RuleResult, Verdict
from evals.gated import COMPARISONS, GatedChange, GatedSuite

COUNTED = "newly_failing_cases"
SAID: dict[Verdict, str] = {"passed": "passed", "rejected": "was rejected", "inconclusive": "is inconclusive"}
SHORT = 9  # characters of a commit


def number(value: float, digits: int = 3) -> str:
    """With a real minus sign, and no minus before zero."""
    return f"{value:z.{digits}f}".replace("-", "−")


def signed(value: float, digits: int = 3) -> str:
    return f"{value:+z.{digits}f}".replace("-", "−")


def interval(rule: RuleResult) -> str:
    if rule.name == COUNTED:
        return ""
    show = signed if rule.name in COMPARISONS else number
    return f"[{show(rule.low)}, {show(rule.high)}]"


def estimate(rule: RuleResult) -> str:
    if rule.name == COUNTED:
        return f"{rule.estimate:.0f}"
    return signed(rule.estimate) if rule.name in COMPARISONS else number(rule.estimate)


def required(rule: RuleResult) -> str:
    """What the rule asks for, in symbols."""
    if rule.name == COUNTED:
        return f"at most {rule.required:.0f}"
    if rule.name == "case_pass_rate":
        return f"at least {number(rule.required)}"
    return f"lower bound above {signed(rule.required) if rule.name in COMPARISONS else number(rule.required)}"


def headline(one: GatedSuite) -> str:
    """The verdict in one sentence, with the difference and the items it took."""
    decision, rule = one.decision, one.comparison
    used = f"{decision.items_used} of {decision.items_available} items"
    if rule is None:
        return f"{one.suite} {SAID[decision.verdict]} on {used}."
    moved = "rose" if rule.estimate > 0 else "fell" if rule.estimate < 0 else "did not move"
    by = f" by {number(abs(rule.estimate))}" if rule.estimate else ""
    return f"{one.suite} {SAID[decision.verdict]}: {one.metric} {moved}{by} {interval(rule)} on {used}."


def change_headline(change: GatedChange) -> str:
    if change.chains and change.suites:
        return " ".join((_suites_headline(change), *(one.headline for one in change.chains)))
    return " ".join(one.headline for one in change.chains) or _suites_headline(change)


def _suites_headline(change: GatedChange) -> str:
    if not change.suites:
        return "No suite is touched by this change; nothing was asked."
    if len(change.suites) == 1:
        return headline(change.suites[0])
    counts = [
        f"{count} {verdict}"
        for verdict in ("rejected", "inconclusive", "passed")
        if (count := sum(one.decision.verdict == verdict for one in change.suites))
    ]
    worst = min((one.decision.verdict for one in change.suites), key=SEVERITY.index)
    return f"The change {SAID[worst]}: of {len(change.suites)} suites {', '.join(counts)}."


def commits(change: GatedChange) -> str:
    return f"{change.base[:SHORT]} → {change.head[:SHORT]}" if change.base else ""


def text_lines(change: GatedChange) -> tuple[str, ...]:
    """What the terminal shows: the verdict, then each suite's reasons and notes."""
    lines = [f"{change.verdict}: {change_headline(change)}", *change.notes]
    for chain in change.chains:
        lines += [f"  {sentence}" for sentence in (*chain.new, *chain.notes)]
    for one in change.suites:
        if len(change.suites) > 1:
            lines.append(headline(one))
        lines += [f"  {sentence}" for sentence in (*one.decision.reasons, *one.notes)]
        if one.decision.item_flips.newly_failing:
            lines.append(
                f"  newly failing: {', '.join(one.decision.item_flips.newly_failing[:MOST_NAMED])}{_more(one)}"
            )
        if one.decision.always_failing:
            lines.append(f"  failing in every repeat: {', '.join(one.decision.always_failing)}")
    return tuple(lines)


MOST_NAMED = 10


def _more(one: GatedSuite) -> str:
    left = len(one.decision.item_flips.newly_failing) - MOST_NAMED
    return f" and {left} more" if left > 0 else ""
