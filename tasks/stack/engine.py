"""What the local vLLM serves: one base model with LoRA slots. Kept in the state folder, so that `liftlock up` brings back the same."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from tasks.processor import cores, has_gpu, read_cpuinfo
from tasks.whole_file import write_whole

BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}  # x86, x86, ARM
FEW_CORES = 8
LIMITS = ("max_model_len", "max_num_seqs", "max_loras", "max_lora_rank", "max_cpu_loras")


class EngineBusy(Exception):
    """The engine would have to be another one, and something that it serves depends on it."""


@dataclass(frozen=True)
class Engine:
    """Flags have vLLM's names. `model` is a folder; clients see its last part as the base model's name."""

    model: str
    max_model_len: int = 2048
    max_num_seqs: int = 64
    max_loras: int = 4
    max_lora_rank: int = 8  # vLLM pads every adapter to it, and on a CPU the work grows with it
    max_cpu_loras: int = 0  # adapters kept in the host's memory; 0: four times max_loras

    @property
    def cpu_loras(self) -> int:
        return max(self.max_cpu_loras or 4 * self.max_loras, self.max_loras)

    @property
    def served_name(self) -> str:
        return Path(self.model).name.lower()

    def covers(self, asked: Engine) -> bool:
        """Whether a release that asks for `asked` can be served without a restart."""
        return self == self.widened(asked) and self.model == asked.model

    def widened(self, asked: Engine) -> Engine:
        """This engine with every limit at least as high as asked."""
        return replace(self, **{flag: max(getattr(self, flag), getattr(asked, flag)) for flag in LIMITS})


def engine_file(state: Path) -> Path:
    return state / "engine.json"


def read_engine(state: Path) -> Engine | None:
    file = engine_file(state)
    return Engine(**json.loads(file.read_text())) if file.exists() else None


def write_engine(state: Path, engine: Engine) -> None:
    write_whole(engine_file(state), json.dumps(asdict(engine), indent=2) + "\n")


def choose_engine(current: Engine | None, asked: Engine, served: Sequence[str], running: bool) -> Engine:
    """The engine that serves what `asked` needs: the current one, that one with wider limits, or, before the first, `asked`.

    `served` names the models behind the gateway: while there are any, the base model stays, and while the engine is
    `running` its limits stay too, because wider ones need a restart. Raises EngineBusy.
    """
    if current is None or current.covers(asked):
        return current or asked
    names = ", ".join(served)
    if served and current.model != asked.model:
        raise EngineBusy(
            f"the engine serves {current.served_name}, the base of {names} behind the gateway; the release needs "
            f"{asked.served_name}. Use another state folder (LIFTLOCK_STATE) for another base model"
        )
    engine = current.widened(asked) if current.model == asked.model else asked
    if served and running:
        raise EngineBusy(
            f"the engine runs with {_limits(current, engine)} and serves {names}; the release needs "
            f"{_limits(engine, current)}, and a restart would fail its clients' requests for as long as vLLM starts. "
            "Ask for less in the release's serving section, or run `liftlock down` at a time that suits and then the release again"
        )
    return engine


def _limits(engine: Engine, other: Engine) -> str:
    """The limits in which the two differ, with the first one's values."""
    differing = (flag for flag in LIMITS if getattr(engine, flag) != getattr(other, flag))
    return ", ".join(f"{flag} {getattr(engine, flag)}" for flag in differing)


def cpu_dtype(cpuinfo: str) -> str:
    """vLLM's --dtype for a processor by its /proc/cpuinfo: the checkpoint's own ("auto") where the processor multiplies
    bfloat16 natively, else float32, which is about ten times as fast there.
    """
    return "auto" if BFLOAT16_FLAGS & set(cpuinfo.split()) else "float32"


def engine_dtype() -> str:
    """The --dtype that the local engine is started with; a GPU, or a system without /proc, keeps the checkpoint's own."""
    cpuinfo = read_cpuinfo()
    return "auto" if has_gpu() or not cpuinfo else cpu_dtype(cpuinfo)


@dataclass(frozen=True)
class Layout:
    """How vLLM lies on the machine: what its environment and its flags say of processes and threads."""

    environment: dict[str, str] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()


def cpu_layout(count: int) -> Layout:
    """On a few cores scheduler and worker are one process that computes on all of them. vLLM's default has two, and gives a core
    to the scheduler, which spins there while it waits for the worker; on many cores that costs little, and vLLM binds threads.
    """
    if count > FEW_CORES:
        return Layout()
    # vLLM's CPU platform takes the executor `uni` only where this is 0 (vllm/platforms/cpu.py); the HTTP server stays a process of its own
    one_process = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    return Layout(
        {**one_process, "OMP_NUM_THREADS": str(count)},
        ("--distributed-executor-backend", "uni"),
    )


def engine_layout() -> Layout:
    """Of the local engine on this machine; a GPU keeps vLLM's own."""
    return Layout() if has_gpu() else cpu_layout(cores(read_cpuinfo()))


def vllm_arguments(engine: Engine, port: int, dtype: str) -> list[str]:
    """`vllm serve` with adapters found by name in the adapters folder (the filesystem resolver).

    The model is named relative to its parent folder, because the resolver compares that name with the adapter's
    base_model_name_or_path, which holds no path of any machine.
    """
    return [
        "serve", Path(engine.model).name, "--host", "127.0.0.1", "--port", str(port),
        "--served-model-name", engine.served_name, "--dtype", dtype,
        "--max-model-len", str(engine.max_model_len), "--max-num-seqs", str(engine.max_num_seqs),
        "--enable-lora", "--max-loras", str(engine.max_loras), "--max-cpu-loras", str(engine.cpu_loras),
        "--max-lora-rank", str(engine.max_lora_rank), "--enforce-eager", "--disable-uvicorn-access-log",
        "--enable-log-requests",  # a line with the request's id; prompts only at DEBUG
    ]  # fmt: skip
