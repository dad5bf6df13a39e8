"""Retrieval figures against values computed by hand, and the verdict on a change."""

import math

import pytest
from scipy import stats

from evals.retrieval import Ranked, judge, paired


@pytest.mark.parametrize(
    ("places", "gold", "recall_5", "ndcg", "reciprocal"),
    [
        ((1,), 1, 1.0, 1.0, 1.0),
        ((3,), 1, 1.0, 0.5, 1 / 3),  # 1 / log2(4)
        ((7,), 1, 0.0, 1 / 3, 1 / 7),  # 1 / log2(8)
        ((), 1, 0.0, 0.0, 0.0),
        ((1, 3), 2, 1.0, 1.5 / (1 + 1 / math.log2(3)), 1.0),
        ((2,), 2, 0.5, (1 / math.log2(3)) / (1 + 1 / math.log2(3)), 0.5),
    ],
)
def test_figures_of_one_question(
    places: tuple[int, ...], gold: int, recall_5: float, ndcg: float, reciprocal: float
) -> None:
    one = Ranked("q", places, gold)
    assert one.recall(5) == pytest.approx(recall_5)
    assert (one.ndcg, one.reciprocal) == (pytest.approx(ndcg), pytest.approx(reciprocal))


def test_the_interval_of_paired_differences_is_student_s() -> None:
    first, second = [1.0, 0.5, 0.25, 1.0, 0.0], [0.5, 0.5, 0.0, 1.0, 0.25]
    found = paired(first, second)
    expected = stats.ttest_rel(first, second).confidence_interval(0.95)
    assert (found.low, found.high) == (pytest.approx(expected.low), pytest.approx(expected.high))
    assert found.mean == pytest.approx(0.1)


def test_a_change_passes_is_rejected_or_cannot_be_told() -> None:
    accepted = {str(i): 0.5 + (i % 5) / 10 for i in range(100)}
    assert judge(accepted, accepted, 0.03)[0] == "passed"
    assert judge({name: value - 0.2 for name, value in accepted.items()}, accepted, 0.03)[0] == "rejected"
    noisy = {name: value + (0.5 if int(name) % 2 else -0.5) for name, value in accepted.items()}
    assert judge(noisy, accepted, 0.03)[0] == "inconclusive"
    with pytest.raises(ValueError, match=r"the questions differ \(0, …\)"):
        judge({name: accepted[name] for name in accepted if name != "0"}, accepted, 0.03)
