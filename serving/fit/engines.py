"""What differs between vLLM versions, as measured; one row for each change. Pure.

Sources: the points and the version sweep of llm-d-incubation/llm-d-planner pull 205 (H100, one model over 0.15 to 0.18,
14 models on 0.19), and vllm/v1/sample of 0.32.0. Versions before 0.11 (the V0 engine) are not modelled.
"""

import re
from dataclasses import dataclass

from serving.fit.catalogue import MIB

PINNED_ENGINE = "0.23.0"


class UnknownEngine(Exception):
    """No memory model for this vLLM version."""


@dataclass(frozen=True)
class Engine:
    """Valid from `since` until the next row."""

    since: tuple[int, int]
    logit_bytes: int  # transient bytes for each value of the [max_num_seqs, vocab_size] logits in the sampler's profile
    non_torch_bytes: int  # CUDA context, cuBLAS, NCCL, attention workspaces of one process at tensor_parallel_size 1


# logit_bytes before 0.17: torch's sort in top-k/top-p (float32 copies, sorted values, int64 indices): 38 bytes explain
# 5.56 GiB (Qwen3-0.6B) and 5.64 GiB (Qwen3-14B, 0.15 and 0.16), both with 1024 sequences.
# From 0.17: Triton or FlashInfer without sorting. 16-bit logits 2 + float32 copy 4 + softmax 4 + exponential noise 4 =
# 14 bytes; with the hidden states (parts.py) they explain Qwen3-14B 2.23 GiB, granite-8B 0.85, Gemma-2-27B 3.66.
# non_torch_bytes: 0.13 GiB up to 0.17, 0.25 from 0.18 (one model of 14: 0.46).
ENGINES = (
    Engine((0, 11), 38, 133 * MIB),
    Engine((0, 17), 14, 133 * MIB),
    Engine((0, 18), 14, 256 * MIB),
)


def find_engine(version: str) -> Engine:
    """`version` as vLLM prints it: 0.23.0, v0.26.1rc1.dev608. Raises UnknownEngine."""
    match = re.match(r"^v?(\d{1,4})\.(\d{1,4})(\D|$)", version)
    number = (int(match[1]), int(match[2])) if match else (0, 0)
    rows = [engine for engine in ENGINES if engine.since <= number]
    if not rows:
        oldest = ".".join(map(str, ENGINES[0].since))
        raise UnknownEngine(
            f"vLLM {version[:40]!r} is not modelled; required: {oldest} or later. Use the pinned {PINNED_ENGINE}."
        )
    return rows[-1]
