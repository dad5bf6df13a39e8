"""Whether two reports may be compared: the same task, data, prompt, engine and settings, and the same ids. Pure.

A fine-tune's score moves with the prompt template, the engine's version and the batch composition, so a difference
in any of them would be read as a difference between the models.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from evals.report import EvalReport

MODEL_FIELDS = ("model", "model_sha256")  # what may differ between the two sides


class FingerprintMismatch(Exception):
    """The two models were not asked the same way. The message names the difference."""


def check_comparable(candidate: EvalReport, baseline: EvalReport, under_test: Sequence[str] = ()) -> None:
    """Raise FingerprintMismatch unless only the model differs. The versions of the scoring tools count as settings.

    `under_test` are fields that may differ too, because their effect is what is asked for: a change of the prompt, or a
    newer engine under a model that serves already.
    """
    old, new = asked(baseline), asked(candidate)
    sides = f"the baseline {baseline.fingerprint.model} and the candidate {candidate.fingerprint.model}"
    differences = [
        f"{key} is {old.get(key, 'absent')} there and {new.get(key, 'absent')} here"
        for key in sorted(old | new)
        if old.get(key) != new.get(key) and key not in under_test
    ]
    if differences:
        raise FingerprintMismatch(
            f"{sides} were not asked alike: {'; '.join(differences)}. Evaluate the baseline again"
        )
    _check_same_ids(sides, "item", {item.id for item in candidate.items}, {item.id for item in baseline.items})
    _check_same_ids(sides, "case", {case.id for case in candidate.cases}, {case.id for case in baseline.cases})


def asked(report: EvalReport) -> dict[str, str]:
    """How the model was asked, one setting a key, so that a mismatch can be named."""
    found = {key: str(value) for key, value in asdict(report.fingerprint).items() if key not in MODEL_FIELDS}
    sampling = {f"sampling.{key}": str(value) for key, value in _settings(found.pop("sampling")).items()}
    return found | sampling | {f"version of {tool}": version for tool, version in report.tool_versions}


def _settings(sampling: str) -> dict[str, object]:
    try:
        settings = json.loads(sampling)
    except ValueError:
        settings = None
    return settings if isinstance(settings, dict) else {"text": sampling}


def _check_same_ids(sides: str, kind: str, ours: set[str], theirs: set[str]) -> None:
    odd = sorted(ours ^ theirs)
    if odd:
        where = "candidate" if odd[0] in ours else "baseline"
        raise FingerprintMismatch(
            f"{sides} have different {kind} ids: {len(odd)} are on one side only, such as {odd[0]!r} on the {where}'s. "
            "Evaluate both on the same file"
        )
