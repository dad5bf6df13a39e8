"""The model and the adapter of make bench-modelcar: random bytes in the files of a checkpoint in four shards."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

SHARDS = 4
ADAPTER_BYTES = 5 << 20


def write_shard(path: Path, name: str, size: int) -> None:
    header = json.dumps({name: {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        for start in range(0, size, 1 << 24):
            file.write(os.urandom(min(1 << 24, size - start)))


def make_model(folder: Path, gib: float) -> Path:
    folder.mkdir()
    names = [f"model-{number:05}-of-{SHARDS:05}.safetensors" for number in range(1, SHARDS + 1)]
    for number, name in enumerate(names):
        write_shard(folder / name, f"w{number}", int(gib * 2**30) // SHARDS)
    index = {"weight_map": {f"w{number}": name for number, name in enumerate(names)}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Random weights\n")
    return folder


def make_adapter(folder: Path) -> Path:
    folder.mkdir()
    write_shard(folder / "adapter_model.safetensors", "lora_A", ADAPTER_BYTES)
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 8}')
    return folder
