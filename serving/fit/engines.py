"""What differs between vLLM versions, as read in the source or measured; one row for each change. Pure.

Sources: vLLM's release notes and code (0.32.0), the version sweep of llm-d-incubation/llm-d-planner pull 205 (H100, one
model over 0.15 to 0.18, 14 models on 0.19), and the public logs in tests/data/fit_points.jsonl. The V1 engine from 0.11
on is modelled term by term; its first form (0.8 to 0.10) and the V0 engine roughly, with a wider band.
"""

import re
from dataclasses import dataclass

from serving.fit.catalogue import MIB

PINNED_ENGINE = "0.23.0"
NEWEST = (0, 32)
V1_CAPABILITY = (8, 0)  # older cards stayed on V0 until it was removed in 0.11


class UnknownEngine(Exception):
    """The text is no vLLM version."""


@dataclass(frozen=True)
class Engine:
    """Valid from `since` until the next row."""

    since: tuple[int, int]
    # Transient bytes for each value of the [max_num_seqs, vocab_size] logits in the sampler's profile run. Until 0.16
    # torch's sort in top-k/top-p (float32 copies, sorted values, int64 indices): 38 bytes explain 5.56 GiB (Qwen3-0.6B)
    # and 5.64 GiB (Qwen3-14B), 1024 sequences, and V0's 1.40 GiB (Qwen2.5-Math-1.5B, 256). From 0.17 a kernel without
    # sort: 16-bit logits 2 + float32 copy 4 + softmax 4 + exponential noise 4 = 14; explains Qwen3-14B's 2.23 GiB.
    logit_bytes: int = 38
    # Context, cuBLAS and attention workspaces of one process: 0.01 to 0.14 GiB up to 0.17, 0.24 to 0.26 from 0.18.
    non_torch_bytes: int = 100 * MIB
    v1: bool = True
    hybrid_groups: bool = True  # windows and states have groups of their own (hybrid KV cache manager)
    graphs_in_budget: bool = False  # VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS, on by default since 0.21
    utilization: float = 0.90  # default of --gpu-memory-utilization (vllm/config/cache.py)
    moe_workspace: bool = False  # the experts' buffers stay allocated (v1/worker/workspace.py): Mixtral's 1.21 GiB
    batches_in_flight: int = 1  # max_in_flight_tokens / max_num_batched_tokens (async scheduling)
    states: int = 1  # blocks of recurrent state a request holds; 2 with prefix caching in mode "align"
    band_share: float = 0.0  # of the card's memory, added to the band: how roughly this generation is modelled


ENGINES = (
    Engine((0, 0), v1=False, hybrid_groups=False, band_share=0.02),
    # First V1: one failure is on record where the engine had 5 GiB less than its log's terms explain (Qwen3-8B, A800).
    Engine((0, 8), hybrid_groups=False, band_share=0.07),
    Engine((0, 9), hybrid_groups=False, band_share=0.02),
    Engine((0, 11)),
    Engine((0, 14), moe_workspace=True),
    Engine((0, 16), moe_workspace=True, states=2),
    Engine((0, 17), 14, moe_workspace=True, states=2),
    Engine((0, 18), 14, 256 * MIB, moe_workspace=True, states=2),
    Engine((0, 21), 14, 256 * MIB, moe_workspace=True, states=2, graphs_in_budget=True, utilization=0.92),
    Engine(
        (0, 30), 14, 256 * MIB, moe_workspace=True, states=2, graphs_in_budget=True, utilization=0.92,
        batches_in_flight=2,
    ),
)  # fmt: skip
UNKNOWN_BAND = 0.02  # for a version after the newest that was read


def find_engine(version: str, compute_capability: tuple[int, int] = (9, 0)) -> Engine:
    """`version` as vLLM prints it: 0.23.0, v0.26.1rc1.dev608; "V0" beside it chooses that engine.

    Raises UnknownEngine.
    """
    number = version_number(version)
    rows = [engine for engine in ENGINES if engine.since <= number]
    old_card = compute_capability < V1_CAPABILITY and number < (0, 11)
    return ENGINES[0] if re.search(r"\bV0\b", version) or old_card else rows[-1]


def version_number(version: str) -> tuple[int, int]:
    """Major and minor. Raises UnknownEngine."""
    match = re.match(r"^v?(\d{1,4})\.(\d{1,4})(\D|$)", version)
    if match is None:
        raise UnknownEngine(
            f"{version[:40]!r} is no vLLM version; required: e.g. {PINNED_ENGINE}. Use --engine-version {PINNED_ENGINE}."
        )
    return int(match[1]), int(match[2])


def is_newer(version: str) -> bool:
    """After the newest release that was read."""
    return version_number(version) > NEWEST
