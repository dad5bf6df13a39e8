"""What the local vLLM serves: one base model with LoRA slots. Kept in the state folder, so that `liftlock up` brings back the same."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

LIMITS = ("max_model_len", "max_num_seqs", "max_loras", "max_lora_rank")


class EngineBusy(Exception):
    """The engine serves another base model and something depends on it."""


@dataclass(frozen=True)
class Engine:
    """Flags have vLLM's names. `model` is a folder; clients see its last part as the base model's name."""

    model: str
    max_model_len: int = 2048
    max_num_seqs: int = 64
    max_loras: int = 4
    max_lora_rank: int = 8  # vLLM pads every adapter to it, and on a CPU the work grows with it

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
    state.mkdir(parents=True, exist_ok=True)
    temporary = engine_file(state).with_suffix(".new")
    temporary.write_text(json.dumps(asdict(engine), indent=2) + "\n")
    temporary.replace(engine_file(state))


def vllm_arguments(engine: Engine, port: int) -> list[str]:
    """`vllm serve` with adapters found by name in the adapters folder (the filesystem resolver).

    The model is named relative to its parent folder, because the resolver compares that name with the adapter's
    base_model_name_or_path, which holds no path of any machine.
    """
    return [
        "serve", Path(engine.model).name, "--host", "127.0.0.1", "--port", str(port),
        "--served-model-name", engine.served_name,
        "--max-model-len", str(engine.max_model_len), "--max-num-seqs", str(engine.max_num_seqs),
        "--enable-lora", "--max-loras", str(engine.max_loras), "--max-cpu-loras", str(4 * engine.max_loras),
        "--max-lora-rank", str(engine.max_lora_rank), "--enforce-eager", "--disable-uvicorn-access-log",
    ]  # fmt: skip
