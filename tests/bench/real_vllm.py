"""The real vLLM for the benches of rollouts and adapters, and adapters for it that change nothing. Not a test."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from tasks.settings import ROOT
from tasks.stack.engine import Engine, engine_dtype, engine_layout, vllm_arguments
from tests.fix_envoy import free_ports
from tests.fix_http import await_http

TOOLCHAIN = ROOT / ".toolchain"
BASE = TOOLCHAIN / "models" / "SmolLM2-135M-Instruct"
RANK = 8
SMALL = Engine(str(BASE), max_model_len=512)
START_SECONDS = 300


@contextmanager
def running_vllm(adapters: Path, engine: Engine = SMALL, toolchain: Path = TOOLCHAIN) -> Iterator[str]:
    """Its address, once it answers; adapters are found by name in the folder, beside which vllm.log is written."""
    (port,) = free_ports(1)
    layout, log = engine_layout(), adapters.parent / "vllm.log"
    environment = {
        **os.environ, "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1", "VLLM_PLUGINS": "lora_filesystem_resolver",
        "VLLM_LORA_RESOLVER_CACHE_DIR": str(adapters), "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "passive", **layout.environment,
    }  # fmt: skip
    argv = [str(toolchain / "vllm/bin/vllm"), *vllm_arguments(engine, port, engine_dtype()), *layout.arguments]
    with log.open("wb") as out:
        process = subprocess.Popen(
            argv, cwd=Path(engine.model).parent, env=environment, stdout=out, stderr=out, start_new_session=True
        )
    try:
        await_http(f"http://127.0.0.1:{port}/health", process, log, START_SECONDS)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, 9)
        process.wait()


def make_adapter(folder: Path, name: str) -> None:
    """A LoRA adapter whose second matrix is zero: the answers are the base model's, the work is an adapter's."""
    shape = json.loads((BASE / "config.json").read_text())
    width, tensors = shape["hidden_size"], {}
    random = np.random.default_rng(sum(name.encode()))
    for layer in range(shape["num_hidden_layers"]):
        place = f"base_model.model.model.layers.{layer}.self_attn.q_proj"
        tensors[f"{place}.lora_A.weight"] = random.normal(0, 0.02, (RANK, width)).astype(np.float32)
        tensors[f"{place}.lora_B.weight"] = np.zeros((width, RANK), dtype=np.float32)
    (folder / name).mkdir(parents=True)
    save_file(tensors, folder / name / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": BASE.name, "r": RANK, "lora_alpha": 16,
        "lora_dropout": 0.0, "bias": "none", "target_modules": ["q_proj"], "inference_mode": True,
    }  # fmt: skip
    (folder / name / "adapter_config.json").write_text(json.dumps(config))
