"""Tiny real model folders for the modelcar tests, written by the safetensors library."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from serving.modelcar import Modelcar, model_layers, write_layout


def make_base(folder: Path) -> Path:
    """Two weight shards, a folder with a small file, and hidden files that an image must not hold."""
    (folder / "sub").mkdir(parents=True)
    for number in (1, 2):
        tensor = np.arange(600, dtype=np.float32).reshape(20, 30) * number
        save_file({f"w{number}": tensor}, folder / f"model-0000{number}-of-00002.safetensors")
    shards = {f"w{number}": f"model-0000{number}-of-00002.safetensors" for number in (1, 2)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "tokenizer.json").write_text('{"version": "1.0"}')
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "README.md").write_text("# Base\n")
    (folder / "sub" / "notes.txt").write_text("a note")
    (folder / ".gitattributes").write_text("hidden")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "x.bin").write_text("hidden")
    return folder


def make_adapter(folder: Path, scale: float = 1.0) -> Path:
    folder.mkdir(parents=True)
    save_file({"lora_A": np.full((4, 30), scale, dtype=np.float32)}, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 4}')
    (folder / "README.md").write_text("# Adapter\n")
    (folder / "trainer_state.json").write_text("{}")
    return folder


def build(root: Path, tag: str | None = None, scale: float = 1.0) -> tuple[Path, Modelcar]:
    """A layout below `root` that holds the image of a base and the adapter `router`."""
    base, adapter = root / "base", root / f"adapter-{scale}"
    layers = model_layers(
        base if base.exists() else make_base(base),
        adapter if adapter.exists() else make_adapter(adapter, scale),
        "router",
    )
    return root / "layout", write_layout(root / "layout", layers, {"org.opencontainers.image.title": "router"}, tag)
