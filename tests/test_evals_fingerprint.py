"""Reports that were not asked alike are not compared, and the difference is named."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from evals.fingerprint import FingerprintMismatch, check_comparable
from evals.report import Fingerprint, canonical
from tests.fix_reports import FINGERPRINT, make_report


def test_only_the_model_may_differ() -> None:
    other = replace(FINGERPRINT, model_sha256="9" * 64)
    check_comparable(make_report([1, 0], model="candidate", fingerprint=other), make_report([0, 0]))


@pytest.mark.parametrize(
    "name", [field.name for field in fields(Fingerprint) if field.name not in ("model", "model_sha256")]
)
def test_every_other_field_is_named(name: str) -> None:
    other = replace(FINGERPRINT, **{name: "changed"})
    with pytest.raises(FingerprintMismatch, match=f"{name}.* is .*changed here.*Evaluate the baseline again"):
        check_comparable(make_report([1], fingerprint=other), make_report([1]))


def test_a_difference_in_sampling_is_named_by_its_setting() -> None:
    other = replace(FINGERPRINT, sampling=canonical({"num_concurrent": 4, "batch_size": 1}))
    with pytest.raises(FingerprintMismatch, match=r"alike: sampling\.num_concurrent is 8 there and 4 here\. "):
        check_comparable(make_report([1], fingerprint=other), make_report([1]))


def test_versions_of_the_scoring_tools_count() -> None:
    newer = replace(make_report([1]), tool_versions=(("lm_eval", "0.5.0"), ("promptfoo", "0.121.20")))
    with pytest.raises(FingerprintMismatch, match=r"version of lm_eval is 0\.4\.13 there and 0\.5\.0 here"):
        check_comparable(newer, make_report([1]))


def test_items_and_cases_have_to_be_the_same() -> None:
    with pytest.raises(FingerprintMismatch, match="2 are on one side only, such as 'b' on the candidate's"):
        check_comparable(make_report({"a": 1.0, "b": 1.0}), make_report({"a": 1.0, "c": 1.0}))
    with pytest.raises(FingerprintMismatch, match="different case ids: 1 are on one side only, such as 'y'"):
        check_comparable(make_report([1], {"x": "passed"}), make_report([1], {"x": "passed", "y": "failed"}))
