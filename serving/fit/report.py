"""FitReport: one verdict with every part, in bytes, and how a verdict follows from headroom and uncertainty. Pure."""

from dataclasses import asdict, dataclass
from typing import Literal

Verdict = Literal["fits", "tight", "does_not_fit"]
ORDER: tuple[Verdict, ...] = ("fits", "tight", "does_not_fit")
DOES_NOT_FIT_EXIT = 3


@dataclass(frozen=True)
class Change:
    """One flag that would help, and the bytes it adds to the headroom."""

    flag: str
    effect_bytes: int


@dataclass(frozen=True)
class FitReport:
    """All memory is of one GPU, in bytes."""

    gpu: str
    engine_version: str
    verdict: Verdict
    total_bytes: int  # as the driver reports it
    usable_bytes: int  # total × gpu_memory_utilization
    weights_bytes: int
    kv_cache_bytes: int  # what is left for it; 0 when nothing is
    kv_cache_tokens: int
    activation_bytes: int
    cuda_graph_bytes: int  # engines before 0.21 take them outside of usable_bytes
    non_torch_bytes: int
    lora_bytes: int
    headroom_bytes: int  # usable − all parts − KV cache of one sequence of max_model_len; negative when it does not fit
    uncertainty_bytes: int  # half-width of the band around the headroom
    max_model_len: int  # asked
    max_model_len_fits: int  # the longest that would be called "fits"; 0 when none
    max_num_seqs_fits: int  # the most sequences with which max_model_len would be called "fits"; 0 when none
    concurrency_at_max_model_len: float  # as vLLM prints it
    host_ram_needed_bytes: int
    host_ram_bytes: int  # what a pod can get on the GPU's machine; 0 when the machine is not known
    disk_needed_bytes: int
    disk_bytes: int  # 0 when the machine is not known
    flags: tuple[str, ...]  # of `vllm serve`
    changes: tuple[Change, ...]  # cheapest first; empty when it fits
    reasons: tuple[str, ...]

    @property
    def fits(self) -> bool:
        return self.verdict != "does_not_fit"

    @property
    def exit_code(self) -> int:
        return 0 if self.fits else DOES_NOT_FIT_EXIT

    def document(self) -> dict[str, object]:
        """The JSON document of one verdict: every field, with exit_code after the verdict."""
        fields = asdict(self)
        head = {"verdict": fields.pop("verdict"), "exit_code": self.exit_code}
        return head | fields


def judge(headroom_bytes: int, uncertainty_bytes: int) -> Verdict:
    """fits: the whole band is above zero; tight: the band contains zero; does_not_fit: the whole band is below."""
    if headroom_bytes > uncertainty_bytes:
        return "fits"
    return "tight" if headroom_bytes >= -uncertainty_bytes else "does_not_fit"


def worst(*verdicts: Verdict) -> Verdict:
    return max(verdicts, key=ORDER.index)
