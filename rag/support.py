"""Whether each sentence of an answer stands in the passages it was made from. Deterministic and pure; no model judges.

A sentence is supported by a span of a source that has most of its content words, all of its numbers, and a negation
where it has one. That finds words, not meaning: a sentence in quite other words counts as unsupported, and a false one
made of a passage's own words as supported.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

MIN_SHARE = 0.6  # of a sentence's content words
STEM = 6  # letters that two forms of a word have in common
_WORD = re.compile(r"[^\W_]+(?:[.\-/'][^\W_]+)*")
_CITED = re.compile(r"\[(\d+(?:,\s?\d+)*)\]")
_NOT = frozenset({"not", "no", "never", "none", "cannot", "without", "nothing", "nor", "neither", "n't"})
_EMPTY = frozenset(
    re.findall(
        r"\w+",
        """a an and are as at be been by can could did do does for from had has have how i if in into is it its of on one
        or s should so such than that the their them then there these they this to was we were what when where which
        who why will with would you your also only any all each must may might about after before more most other same
        """,
    )
)


@dataclass(frozen=True)
class Quote:
    """The span that supports a sentence best: characters `start` to `end` of the text of source `number`, from 1."""

    sentence: str
    number: int
    start: int
    end: int
    share: float

    @property
    def is_supported(self) -> bool:
        return self.share >= MIN_SHARE


def find_support(answer: str, texts: Sequence[str]) -> tuple[Quote, ...]:
    """One quote a sentence that says something, from the sources it cites, or from any where it cites none."""
    return tuple(
        best_quote(sentence, {number: texts[number - 1] for number in _cited(sentence, len(texts))})
        for sentence in split_sentences(answer)
        if _content(sentence)
    )


def best_quote(sentence: str, texts: dict[int, str]) -> Quote:
    """The best span of one or two neighbouring sentences; share 0 where no source has anything of it."""
    wanted, numbers = _content(sentence), _numbers(sentence)
    best = Quote(sentence, 0, 0, 0, 0.0)
    for number, text in texts.items():
        spans = sentence_spans(text)
        for start, end in [*spans, *((a, d) for (a, _), (_, d) in pairwise(spans))]:
            share = _share(wanted, numbers, sentence, text[start:end])
            if share > best.share:
                best = Quote(sentence, number, start, end, share)
    return best


def split_sentences(text: str) -> list[str]:
    return [text[start:end] for start, end in sentence_spans(text)]


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """Start and end of each sentence or line that holds a word. A citation behind the full stop goes with it."""
    found = re.finditer(r"[^\n]+?(?:[.!?][)\]\"'`*]*(?:\s?\[[\d, ]+\])*(?=\s|$)|$)", text, re.MULTILINE)
    return [match.span() for match in found if _WORD.search(match.group())]


def _cited(sentence: str, count: int) -> list[int]:
    named = [int(number) for group in _CITED.findall(sentence) for number in re.findall(r"\d+", group)]
    return [number for number in named if 1 <= number <= count] or list(range(1, count + 1))


def _share(wanted: frozenset[str], numbers: frozenset[str], sentence: str, span: str) -> float:
    if not numbers <= _numbers(span) or (_negates(sentence) and not _negates(span)):
        return 0.0
    return len(wanted & _content(span)) / len(wanted) if wanted else 0.0


def _words(text: str) -> list[str]:
    return _WORD.findall(_CITED.sub(" ", text).lower())


def _content(text: str) -> frozenset[str]:
    return frozenset(word[:STEM] for word in _words(text) if word not in _EMPTY)


def _numbers(text: str) -> frozenset[str]:
    return frozenset(word for word in _words(text) if any(letter.isdigit() for letter in word))


def _negates(text: str) -> bool:
    return any(word in _NOT or word.endswith("n't") for word in _words(text))
