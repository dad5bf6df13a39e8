"""A real training of seconds: a model of two layers with random weights, a real tokenizer, and forty dialogs of different lengths."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tasks.settings import get_settings

STEPS = 30  # three epochs of ten; checkpoints at every second step
LEARNED: dict[str, Any] = {  # a LoraRequest without its paths
    "base_name": "tiny", "r": 4, "lora_alpha": 8, "target_modules": ("q_proj", "v_proj"), "first_layer": 0, "learning_rate": 0.01,
    "num_train_epochs": 3.0, "per_device_train_batch_size": 4, "warmup_steps": 2, "max_length": 256, "seed": 3, "key": "tiny",
    "checkpoint_seconds": 0.0,
}  # fmt: skip


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its folder is named `tiny`."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("base") / "tiny"
    tokenizer = AutoTokenizer.from_pretrained(get_settings().models / "SmolLM2-135M-Instruct")
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        bos_token_id=1, eos_token_id=2, pad_token_id=2,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_dialogs(folder: Path) -> Path:
    rows = [
        {"prompt": [{"role": "user", "content": f"ticket {n} " + "please " * (n * 7 % 23)}],
         "completion": [{"role": "assistant", "content": ("red", "green", "blue")[n % 3]}]}
        for n in range(40)
    ]  # fmt: skip
    file = folder / "dialogs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file
