"""Findings as SARIF 2.1.0, for code hosts that show them beside the changed lines. Pure."""

from __future__ import annotations

from typing import Any

from serving.coherence.check import Checked, Grouped
from serving.coherence.findings import RULES


def sarif(checked: Checked) -> dict[str, Any]:
    rules = [
        {"id": name, "shortDescription": {"text": rule.title}, "fullDescription": {"text": rule.why}}
        for name, rule in RULES.items()
    ]
    results = [_result(each) for each in checked.findings]
    driver = {"name": "liftlock coherence", "rules": rules}
    return {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{"tool": {"driver": driver}, "results": results}],
    }


def _result(grouped: Grouped) -> dict[str, Any]:
    one = grouped.finding
    place = {
        "artifactLocation": {"uri": one.at.file or "chain.yaml"},
        "region": {"startLine": max(1, one.at.line)},
    }
    return {
        "ruleId": one.rule,
        "level": "error",
        "message": {"text": f"{', '.join(grouped.aliases)}: {one.message}. {one.change}"},
        "locations": [{"physicalLocation": place}],
    }
