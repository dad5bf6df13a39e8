"""One log of an engine that started, compared with the estimate for the same model, flags and card."""

import hashlib
from pathlib import Path

from serving.fit.catalogue import Gpu, load_gpus
from serving.fit.contract import ContractUnread, compare
from serving.fit.engine_log import Actual, read_log
from serving.fit.engines import PINNED_ENGINE
from serving.fit.fit_files import fit_files
from serving.fit.model_reader import read_model
from serving.fit.open_model import Places, open_model
from serving.fit.residuals import Start, start_of
from serving.fit.vllm_args import parse_args

MAX_LOG_BYTES = 256 * 1024 * 1024
SAME_CARD = 0.01  # totals of one card's name differ by up to 0.5 %, those of two names by more than 2 %
# The arguments in the log's own spelling that parse_args knows as flags.
ASKED = (
    "gpu_memory_utilization", "max_model_len", "max_num_seqs", "max_num_batched_tokens", "dtype", "kv_cache_dtype",
    "quantization", "max_loras", "max_lora_rank", "tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size",
    "block_size",
)  # fmt: skip
SWITCHES = ("enforce_eager", "enable_lora", "language_model_only", "enable_expert_parallel")


def read_start(path: Path, model: str | None, gpu: Gpu | None, engine_version: str | None, places: Places) -> Start:
    """`model`, `gpu` and `engine_version` where the log does not say them, or says them otherwise.

    Raises ContractUnread, ModelUnreadable, and what fit_files raises.
    """
    actual = read_log(_text(path))
    asked = dict(actual.asked)
    name = model or asked.get("model") or asked.get("model_tag")
    card = gpu or _card(actual)
    if name is None or card is None:
        lacking, option = ("model", "--model MODEL") if name is None else ("card", "--gpu NAME")
        raise ContractUnread(f"{path} does not name the {lacking} that it ran on or served. Add {option}.")
    version = engine_version or actual.engine_version or PINNED_ENGINE
    files = read_model(open_model(name, places))
    report = fit_files(files, (), card, parse_args(_argv(asked), {}).flags, version)
    contract = compare(report, actual)
    if not contract.terms:
        raise ContractUnread(
            f"{path} has no memory of a GPU to compare ({' '.join(contract.notes) or 'no such lines'}); required: the "
            "log of an engine on a GPU, from its start on."
        )
    return start_of(hashlib.sha256(path.read_bytes()).hexdigest(), card.name, files.name, version, contract)


def _text(path: Path) -> str:
    try:
        size = path.stat().st_size
        if size > MAX_LOG_BYTES:
            raise ContractUnread(f"{path} has {size} bytes; at most {MAX_LOG_BYTES} are read. Cut it after the start.")
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise ContractUnread(f"{path} cannot be read ({error.strerror}); required: a log of vLLM.") from error


def _card(actual: Actual) -> Gpu | None:
    """By the total that some versions log, where one card of the catalogue has it."""
    total = actual.total_bytes
    if total is None:
        return None
    near = [gpu for gpu in load_gpus().values() if abs(gpu.memory_bytes - total) <= SAME_CARD * gpu.memory_bytes]
    return near[0] if len(near) == 1 else None


def _argv(asked: dict[str, str]) -> list[str]:
    values = [f"--{name.replace('_', '-')}={asked[name]}" for name in ASKED if name in asked]
    return values + [f"--{name.replace('_', '-')}" for name in SWITCHES if asked.get(name) == "True"]
