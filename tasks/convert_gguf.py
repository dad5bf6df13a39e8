"""`python -m tasks.convert_gguf FILE.gguf FOLDER`: a GGUF file to a plain Hugging Face checkpoint in bf16.

transformers refuses to save a model that it loaded from GGUF, so the weights go into a fresh model of the same shape.
The result is the dequantised Q4_1 model, not the weights the authors published in bf16. Llama architecture only.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

DROPPED = ("quantization_config", "_name_or_path", "_model_name_or_path")
RMS_NORM_EPS = 1e-5  # GGUF keeps it as float32, which reads back as 9.99999974e-06


def card(gguf: Path) -> str:
    """A model card of what the GGUF file says of itself: its name and its licence."""
    from gguf import GGUFReader

    fields = GGUFReader(gguf).fields
    said = {key: str(fields[f"general.{key}"].contents()) for key in ("name", "license") if f"general.{key}" in fields}
    licence, name = said.get("license", "unknown"), said.get("name", gguf.stem)
    return f"---\nlicense: {licence}\n---\n\n# {name}\n\nDequantised from {gguf.name} to bfloat16 safetensors.\n"


def convert(gguf: Path, folder: Path) -> None:
    """Write `folder` atomically: it is either whole or absent."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    source = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    config = {key: value for key, value in source.config.to_dict().items() if key not in DROPPED}
    model = LlamaForCausalLM(LlamaConfig.from_dict({**config, "rms_norm_eps": RMS_NORM_EPS, "dtype": "bfloat16"}))
    model.load_state_dict(source.state_dict(), strict=True)
    model.tie_weights()
    model = model.to(torch.bfloat16)
    model.generation_config.bos_token_id, model.generation_config.eos_token_id, model.generation_config.pad_token_id = (
        1,
        2,
        2,
    )
    partial = folder.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    (partial / "README.md").write_text(card(gguf))
    for path in partial.iterdir():
        path.chmod(0o644)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
