"""The longest max_model_len and the most max_num_seqs that would still be called "fits". Pure.

With the V1 engine both leave the other parts alone or move them one way, so the answer is where the headroom crosses the
band, found by halving on the exact formulas. V0 takes a whole prompt in one step up to 32768 tokens and small chunks
above, so its headroom falls, jumps up and falls again; both stretches are halved and the longer answer counts.
"""

from collections.abc import Callable
from dataclasses import replace

from serving.fit.case import Case
from serving.fit.flags import ServedFlags
from serving.fit.resolve import OLD_CHUNKING_FROM, default_batch

MOST_SEQUENCES = 4096


def longest_length(case: Case, flags: ServedFlags, own_batch: bool) -> int:
    """At most the model's positions; 0 when none fits. `own_batch`: max_num_batched_tokens was asked for, not derived."""

    def fits(length: int) -> bool:
        tokens = flags.max_num_batched_tokens
        if not own_batch:
            tokens = max(default_batch(case.gpu, case.engine, length, case.model.multimodal)[1], flags.max_num_seqs)
        return case.certain(replace(flags, max_model_len=length, max_num_batched_tokens=tokens))

    positions = case.model.max_position_embeddings
    if case.engine.v1 or own_batch or positions <= OLD_CHUNKING_FROM:
        return _last(fits, 1, positions)
    above = _last(fits, OLD_CHUNKING_FROM + 1, positions)
    return above or _last(fits, 1, OLD_CHUNKING_FROM)


def most_sequences(case: Case, flags: ServedFlags) -> int:
    """At most the tokens of a batch, which vLLM demands; 0 when none fits."""
    most = min(flags.max_num_batched_tokens, MOST_SEQUENCES)
    return _last(lambda number: case.certain(replace(flags, max_num_seqs=number)), 1, most)


def _last(fits: Callable[[int], bool], low: int, high: int) -> int:
    """The largest that fits from low to high, where everything below one that fits does too; 0 when low does not."""
    if not fits(low):
        return 0
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low
