"""A gated change as JUnit XML, for any CI's test page. Pure.

One test suite a suite of evaluations; one test case a rule, and one for the whole verdict. A rule that failed is a failure and
one that is undecided an error: both make a CI red, so the file never says more than the exit code does.
"""

from __future__ import annotations

from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from evals.gate_policy import Verdict
from evals.gate_sentences import estimate, headline, interval, required
from evals.gated import GatedChain, GatedChange, GatedSuite

ELEMENTS: dict[Verdict, str] = {"rejected": "failure", "inconclusive": "error"}


def to_junit(change: GatedChange) -> str:
    """Equal changes give equal text; no times, for they are not part of the verdict."""
    root = Element("testsuites", name="liftlock gate")
    for one in change.suites:
        _suite(root, one)
    for chain in change.chains:
        _chain(root, chain)
    for key in ("tests", "failures", "errors"):
        root.set(key, str(sum(int(suite.get(key, "0")) for suite in root)))
    ElementTree.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(root, encoding="unicode")}\n'


def _suite(root: Element, one: GatedSuite) -> None:
    suite = SubElement(root, "testsuite", name=_clean(one.suite))
    for rule in one.decision.rules:
        said = f"{estimate(rule)} {interval(rule)}; required: {required(rule)}"
        _case(suite, one, rule.label, rule.verdict, said, said)
    reasons = "\n".join((*one.decision.reasons, *one.notes, *_named(one)))
    _case(suite, one, "verdict", one.decision.verdict, headline(one), reasons)
    for key, tag in (("tests", "testcase"), ("failures", "testcase/failure"), ("errors", "testcase/error")):
        suite.set(key, str(len(suite.findall(tag))))


def _chain(root: Element, one: GatedChain) -> None:
    """One test case for the folder; its failure holds every new finding."""
    name = _clean(f"coherence {one.path}")
    failed = str(len(one.new) and 1)
    suite = SubElement(root, "testsuite", name=name, tests="1", failures=failed, errors="0")
    case = SubElement(suite, "testcase", classname=name, name="verdict")
    body = _clean("\n".join((*one.new, *one.notes)) or one.headline)
    if one.new:
        SubElement(case, "failure", type=one.verdict, message=_clean(one.headline)).text = body
    else:
        SubElement(case, "system-out").text = body


def _case(suite: Element, one: GatedSuite, name: str, verdict: Verdict, message: str, body: str) -> None:
    case = SubElement(suite, "testcase", classname=_clean(one.suite), name=_clean(name))
    if verdict == "passed":
        SubElement(case, "system-out").text = _clean(body)
    else:
        SubElement(case, ELEMENTS[verdict], type=verdict, message=_clean(message)).text = _clean(body)


def _named(one: GatedSuite) -> list[str]:
    return [
        f"newly failing: {item.id}: {item.candidate_answer!r} in place of {item.baseline_answer!r}"
        for item in one.changed("newly failing")
    ]


def _clean(text: str) -> str:
    """Without the characters that XML 1.0 does not have."""
    return "".join(letter for letter in text if letter in "\t\n\r" or _allowed(ord(letter)))


def _allowed(code: int) -> bool:
    return 0x20 <= code <= 0xD7FF or 0xE000 <= code <= 0xFFFD or code >= 0x10000
