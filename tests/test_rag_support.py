"""Which sentences of an answer stand in the passages, by hand-made pairs."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.support import best_quote, find_support, sentence_spans, split_sentences

GATE = "The gate is inconclusive when a data set has fewer than 40 items.\nA margin of 3 points bounds the loss."
ROLLBACK = "`liftlock rollback NAME` undoes a release. It does not need Prefect."


@pytest.mark.parametrize(
    ("sentence", "number", "span"),
    [
        ("It is inconclusive when there are fewer than 40 items [1].", 1, GATE.splitlines()[0]),
        ("The loss is bounded by a margin of 3 points.", 1, GATE.splitlines()[1]),
        ("Prefect is not needed.", 2, "It does not need Prefect."),
        ("A release is undone by liftlock rollback.", 2, "`liftlock rollback NAME` undoes a release."),
    ],
)
def test_a_sentence_is_supported_by_the_span_that_says_it(sentence: str, number: int, span: str) -> None:
    (quote,) = find_support(sentence, [GATE, ROLLBACK])
    assert quote.is_supported and quote.number == number
    assert span in [GATE, ROLLBACK][number - 1][quote.start : quote.end]


@pytest.mark.parametrize(
    "sentence",
    [
        "It is inconclusive when there are fewer than 50 items.",  # another number
        "A margin bounds no loss.",  # a negation that the source has not
        "The champion is served by three replicas on each node.",
        "Prefect is not needed [1].",  # cites the wrong source
    ],
)
def test_a_sentence_that_no_span_says_is_not_supported(sentence: str) -> None:
    (quote,) = find_support(sentence, [GATE, ROLLBACK])
    assert not quote.is_supported


def test_each_sentence_has_a_quote_of_its_own_and_empty_ones_have_none() -> None:
    quotes = find_support("A margin of 3 points bounds the loss. So it is. The moon is made of cheese.", [GATE])
    assert [quote.is_supported for quote in quotes] == [True, False]


def test_a_citation_behind_the_full_stop_goes_with_its_sentence() -> None:
    assert split_sentences("One thing. [1] Another thing [2]. Version 1.2 of x.") == [
        "One thing. [1]", " Another thing [2].", " Version 1.2 of x.",
    ]  # fmt: skip


@given(st.text(max_size=300))
def test_spans_are_in_order_and_hold_every_word(text: str) -> None:
    spans = sentence_spans(text)
    assert all(a < b for a, b in spans) and all(a[1] <= b[0] for a, b in pairwise(spans))
    kept = "".join(text[a:b] for a, b in spans)
    assert sum(letter.isalnum() for letter in kept) == sum(letter.isalnum() for letter in text)


def test_without_sources_nothing_is_supported() -> None:
    assert best_quote("A margin.", {}).share == 0 and find_support("A margin.", [])[0].number == 0
