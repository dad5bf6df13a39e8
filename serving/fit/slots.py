"""How many LoRA slots an engine should have for many adapters: --max-loras, --max-lora-rank and --max-cpu-loras. Pure.

A slot holds one adapter in the GPU's memory. A batch has at most as many different adapters as there are slots; a request for another
one waits for a free slot and for a copy from the host's memory, or from the disk when it is not there either. So: as many slots as
adapters, as long as the model still "fits" and the KV cache keeps the concurrency that is wanted.
"""

from collections.abc import Callable
from dataclasses import dataclass

from serving.fit.report import FitReport


@dataclass(frozen=True)
class Slots:
    """`report` is of the engine with these slots; with `max_loras` 0 it is the one that says why not even one fits."""

    adapters: int
    max_loras: int
    max_lora_rank: int
    max_cpu_loras: int
    report: FitReport
    reason: str

    @property
    def flags(self) -> tuple[str, ...]:
        lora = (f"--max-loras={self.max_loras}", f"--max-lora-rank={self.max_lora_rank}")
        return (*self.report.flags[:-3], "--enable-lora", *lora, f"--max-cpu-loras={self.max_cpu_loras}")


def choose_slots(estimate: Callable[[int], FitReport], adapters: int, rank: int, concurrency: float = 1.0) -> Slots:
    """`estimate` gives the report for a number of slots of that rank. More slots never leave more memory, so halving finds the most.

    `concurrency`: sequences of max_model_len that the KV cache must hold beside the slots.
    """

    def good(slots: int) -> bool:
        report = estimate(slots)
        return report.verdict == "fits" and report.concurrency_at_max_model_len >= concurrency

    if not good(1):
        report = estimate(1)
        short = f"the KV cache holds {report.concurrency_at_max_model_len:.2f} sequences of {report.max_model_len} tokens, required {concurrency:g}"
        return Slots(adapters, 0, rank, 0, report, short if report.verdict == "fits" else " ".join(report.reasons))
    low, high = 1, adapters
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if good(middle) else (low, middle - 1)
    report = estimate(low)
    kept = _kept(report, adapters, low)
    return Slots(adapters, low, rank, kept, report, _reason(adapters, low, kept))


def _kept(report: FitReport, adapters: int, slots: int) -> int:
    """How many the host's memory holds; where it is not known, as many as there are slots. At least that many: vLLM asks for it."""
    each = max(report.lora_bytes // slots, 1)
    room = max(report.host_ram_bytes - report.host_ram_needed_bytes, 0) // each
    return max(slots, min(adapters, room))


def _reason(adapters: int, slots: int, kept: int) -> str:
    if slots == adapters:
        return "every adapter has a slot"
    where = (
        "the rest wait in the host's memory"
        if kept == adapters
        else f"{adapters - kept} of them are read from the disk each time"
    )
    return f"{slots} of {adapters} adapters have a slot, {where}: a request for an adapter without a slot waits for one"
