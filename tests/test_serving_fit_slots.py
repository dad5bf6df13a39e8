"""How many LoRA slots: the most that fit by trying all of them, what the host keeps, and the command."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.fit import EngineFlags, FitReport, preflight
from serving.fit.slots import choose_slots
from tests.fix_fit import SMOLLM2, TINY, write_model

ROOT = Path(__file__).resolve().parent.parent


def report(slots: int, most: int, concurrency: float, ram: int) -> FitReport:
    """Made by hand: fits up to `most` slots of 10 bytes; each slot takes a sequence's place in the KV cache."""
    return FitReport(
        "card", "0.32.0", "fits" if slots <= most else "tight", 0, 0, 0, 0, 0, 0, 0, 0, 10 * slots, 0, 0, 128, 0, 0, concurrency - slots,
        100, ram, 0, 0, ("--dtype=x", "--enable-lora", "--max-loras=?", "--max-lora-rank=?"), (), ("too large",),
    )  # fmt: skip


@settings(max_examples=300)
@given(st.integers(1, 60), st.integers(0, 70), st.integers(0, 80), st.integers(0, 2000))
def test_the_most_slots_by_trying_all_of_them(adapters: int, most: int, concurrency: int, ram: int) -> None:
    found = choose_slots(lambda slots: report(slots, most, concurrency, ram), adapters, 16, 4)
    good = [n for n in range(1, adapters + 1) if n <= most and concurrency - n >= 4]
    assert found.max_loras == max(good, default=0)
    assert (found.max_lora_rank, found.adapters) == (16, adapters)
    if good:
        assert found.max_cpu_loras == max(found.max_loras, min(adapters, max(ram - 100, 0) // 10))
        lora = (f"--max-loras={found.max_loras}", "--max-lora-rank=16", f"--max-cpu-loras={found.max_cpu_loras}")
        assert found.flags == ("--dtype=x", "--enable-lora", *lora)


@pytest.mark.parametrize(
    ("most", "ram", "said"),
    [
        (9, 0, "every adapter has a slot"),
        (4, 200, "4 of 8 adapters have a slot, the rest wait in the host's memory"),
        (4, 150, "4 of 8 adapters have a slot, 3 of them are read from the disk each time"),
    ],
)
def test_the_reason_says_where_the_others_are(most: int, ram: int, said: str) -> None:
    assert choose_slots(lambda slots: report(slots, most, 100, ram), 8, 16).reason.startswith(said)


def test_not_one_slot_says_why() -> None:
    assert choose_slots(lambda slots: report(slots, 0, 100, 0), 8, 16).reason == "too large"
    short = choose_slots(lambda slots: report(slots, 9, 2, 0), 8, 16, concurrency=5)
    assert short.reason == "the KV cache holds 1.00 sequences of 128 tokens, required 5"


def test_the_estimate_of_a_real_model_agrees_with_every_number_beside_the_choice() -> None:
    asked = EngineFlags(max_model_len=8192, max_lora_rank=256, gpu_memory_utilization=0.3, max_num_seqs=64)

    def estimate(slots: int) -> FitReport:
        return preflight(SMOLLM2, gpu="nvidia-tesla-t4", flags=replace(asked, max_loras=slots))

    found = choose_slots(estimate, 64, 256, 8)
    assert 1 < found.max_loras < 64, "the case decides nothing"
    assert (estimate(found.max_loras).verdict, estimate(found.max_loras).concurrency_at_max_model_len >= 8) == (
        "fits",
        True,
    )
    after = estimate(found.max_loras + 1)
    assert after.verdict != "fits" or after.concurrency_at_max_model_len < 8
    # SmolLM2: in + out of q, k, v, o, gate, up and down, 30 layers, embedding and head, rank 256, two bytes a value
    each = ((1152 + 768 + 768 + 1152 + 2112 + 2112 + 2112) * 30 + 2 * (49152 + 576)) * 256 * 2
    assert found.max_cpu_loras == (after.host_ram_bytes - after.host_ram_needed_bytes) // each


def test_the_command(tmp_path: Path) -> None:
    base = write_model(tmp_path / "base")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "LIFTLOCK_STATE": str(tmp_path / "state")}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "flows.cli", "fit", "slots", str(base), "--gpu", "nvidia-l4", *arguments]
        return subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)

    done = run("--adapters", "64", "--rank", "12", "--max-model-len", str(TINY["max_position_embeddings"]), "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["max_loras"], found["max_lora_rank"], found["max_cpu_loras"]) == (64, 16, 64)
    assert found["flags"][-4:] == ["--enable-lora", "--max-loras=64", "--max-lora-rank=16", "--max-cpu-loras=64"]
    text = run("--adapters", "2", "--rank", "8")
    assert text.stdout.splitlines()[0] == "every adapter has a slot"
    assert run("--adapters", "2", "--rank", "8", "--concurrency", "9", "--max-num-seqs", "4").returncode == 2
    assert run("--adapters", "2", "--rank", "1000").returncode == 2
    assert run("--adapters", "2", "--rank", "8", "--gpu-memory-utilization", "0.001").returncode == 3
