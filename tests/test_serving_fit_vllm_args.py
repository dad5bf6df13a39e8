"""Command lines of vLLM containers and Kubernetes quantities: every spelling that the programs themselves take."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.fit.flags import EngineFlags, FlagsRefused
from serving.fit.quantity import QuantityInvalid, parse_quantity
from serving.fit.vllm_args import ArgsInvalid, parse_args

GIB = 1024**3


@pytest.mark.parametrize(
    ("argv", "model"),
    [
        (["--model=a/b"], "a/b"),
        (["vllm", "serve", "a/b", "--max-model-len", "8192"], "a/b"),
        (["/usr/bin/vllm", "serve", "--max-model-len=8192", "a/b"], "a/b"),
        (["python3", "-m", "vllm.entrypoints.openai.api_server", "--model", "a/b"], "a/b"),
        (["/bin/sh", "-c", "exec vllm serve a/b --max-model-len 8192 && echo done"], "a/b"),
        (["bash", "-lc", "sleep 1; python -m vllm.entrypoints.openai.api_server \\\n --model 'a/b'"], "a/b"),
        (["--model=$(MODEL)"], "env/model"),
        (["--port=8000"], None),
    ],
)
def test_where_the_model_stands(argv: list[str], model: str | None) -> None:
    assert parse_args(argv, {"MODEL": "env/model"}).model == model


def test_flags_in_vllms_spellings() -> None:
    args = parse_args(
        ["--max_model_len", "16k", "-tp=2", "-q", "awq_marlin", "--enforce-eager", "--gpu-memory-utilization", "0.85",
         "--max-num-seqs=64", "--enable-lora", "--max-loras=4", "--max-lora-rank=32", "--max-num-seqs", "32",
         "--kv-cache-dtype=fp8", "--unknown", "x", "--cpu-offload-gb=4"],
        {},
    )  # fmt: skip
    assert args.flags == EngineFlags(
        max_model_len=16000, tensor_parallel_size=2, quantization="awq_marlin", enforce_eager=True,
        gpu_memory_utilization=0.85, max_num_seqs=32, max_loras=4, max_lora_rank=32, kv_cache_dtype="fp8",
    )  # fmt: skip
    assert args.unmodelled == ("cpu-offload-gb",)


def test_lora_is_off_without_its_switch() -> None:
    assert parse_args(["--max-loras=4", "--max-lora-rank=64"], {}).flags.max_loras == 0
    assert parse_args(["--enable-lora"], {}).flags.max_loras == 1


@given(st.lists(st.text(max_size=30) | st.sampled_from(["vllm", "serve", "--max-model-len", "-tp", "=", "sh", "-c"])))
def test_any_command_line_is_parsed_or_refused(argv: list[str]) -> None:
    try:
        args = parse_args(argv, {})
    except (ArgsInvalid, FlagsRefused) as error:
        assert "required" in str(error)
    else:
        assert args.model is None or any(args.model in word or word for word in argv)


@pytest.mark.parametrize(
    ("text", "number"),
    [("12Gi", 12 * GIB), ("500m", 0.5), (4, 4), ("1e3", 1000), ("1.5G", 1.5e9), ("100Mi", 100 << 20), ("1k", 1000)],
)
def test_quantities(text: object, number: float) -> None:
    assert float(parse_quantity(text)) == number


@pytest.mark.parametrize("text", ["", "12 Gi", "Gi", "-1", "1GiB", "9" * 40, "1e999", None, [], True, "٣Gi", "0x10"])
def test_no_quantities(text: object) -> None:
    with pytest.raises(QuantityInvalid):
        parse_quantity(text)
