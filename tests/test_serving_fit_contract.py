"""What vLLM's own words say of its memory, the promise held against it, and what is learned from it.

cpu-0.32.log is the log of the local stack's engine, gpu-0.15.log the lines that a public log has of Llama-3.1-8B on an
A100. The other lines are quoted from public logs; their sources stand in tests/data/fit_points.jsonl under the model.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from serving.fit import EngineFlags, FitReport, estimate, find_gpu
from serving.fit.contract import Contract, ContractBroken, ContractUnread, Term, check_contract, compare
from serving.fit.engine_log import Actual, read_engine, read_log, read_metrics
from serving.fit.residual_store import FILE, ResidualsInvalid, add_starts, load_starts
from serving.fit.residuals import Start, learn, minor, note
from serving.fit.weights import weights_from_config
from tests.fix_fit import LLAMA_8B, shape_of

GIB = 1024**3
LOGS = Path(__file__).with_name("data") / "vllm_logs"
CPU_LOG = (LOGS / "cpu-0.32.log").read_text()
LLAMA = (LOGS / "gpu-0.15.log").read_text()
START = LLAMA.splitlines(keepends=True)[0]
PHI_4 = (
    "Total non KV cache memory: 29.15GiB; torch peak memory increase: 1.52GiB; non-torch forward increase memory: "
    "0.25GiB; weights memory: 27.39GiB.\nAvailable KV cache memory: 46.08 GiB\n"
)
V0 = (
    "the current vLLM instance can use total_gpu_memory (31.74GiB) x gpu_memory_utilization (0.90) = 28.57GiB model "
    "weights take 14.25GiB; non_torch_memory takes 0.09GiB; PyTorch activation peak memory takes 4.35GiB; the rest of "
    "the memory reserved for KV Cache is 9.88GiB.\n"
)
LLAVA = (
    "Actual usage is 14.08 GiB for weight, 1.97 GiB for peak activation, 0.07 GiB for non-torch memory, and 0.67 GiB "
    "for CUDAGraph memory\n"
)
TOO_SMALL = START + (
    "ValueError: To serve at least one request with the model's max seq len (16384), (5.0 GiB KV cache is needed, which "
    "is larger than the available KV cache memory (0.3 GiB). Based on the available memory, the estimated maximum model "
    "length is 976. Try increasing `gpu_memory_utilization`\n"
)
METRICS = """\
# HELP vllm:cache_config_info Information of the LLMEngine CacheConfig
# TYPE vllm:cache_config_info gauge
vllm:cache_config_info{block_size="16",cache_dtype="auto",engine="0",gpu_memory_utilization="0.9",num_gpu_blocks="9871"} 1.0
vllm:cache_config_info{block_size="16",cache_dtype="auto",engine="1",gpu_memory_utilization="0.9",num_gpu_blocks="9000"} 1.0
vllm:num_requests_running{engine="0"} 0.0
"""
NEW_METRICS = (
    'vllm:cache_config_info{block_size="16",engine="0",kv_cache_max_concurrency="2.5",kv_cache_size_tokens="20480",'
    'num_gpu_blocks="None"} 1.0\n'
)


def report(max_model_len: int = 131072) -> FitReport:
    model = shape_of(LLAMA_8B)
    flags = EngineFlags(max_model_len=max_model_len, gpu_memory_utilization=0.9)
    return estimate(model, weights_from_config(model), (), find_gpu("nvidia-a100-40gb"), flags, "0.15.1")


def test_the_local_engines_own_log() -> None:
    actual = read_log(CPU_LOG)
    assert (actual.engine_version, actual.device, actual.max_model_len) == ("0.32.0", "CPU", 2048)
    assert (actual.kv_cache_tokens, actual.concurrency, actual.refusal) == (46592, 22.75, None)
    asked = dict(actual.asked)
    assert asked["model"] == "SmolLM2-135M-Instruct"
    assert (asked["max_loras"], asked["max_num_seqs"], asked["enforce_eager"]) == ("4", "64", "True")


def test_a_v1_log() -> None:
    actual = read_log(LLAMA)
    assert (actual.engine_version, actual.device, actual.max_model_len) == ("0.15.1", "GPU", 131072)
    assert (actual.kv_cache_tokens, actual.concurrency) == (157936, 1.2)
    assert actual.weights_bytes == round(14.99 * GIB)
    assert actual.kv_cache_bytes == round(19.28 * GIB)
    assert actual.cuda_graph_bytes == round(0.83 * GIB)


@pytest.mark.parametrize(
    ("text", "weights", "activation", "non_torch"),
    [(PHI_4, 27.39, 1.52, 0.25), (V0, 14.25, 4.35, 0.09), (LLAVA, 14.08, 1.97, 0.07)],
)
def test_three_wordings_of_the_parts(text: str, weights: float, activation: float, non_torch: float) -> None:
    actual = read_log(text)
    assert actual.weights_bytes == round(weights * GIB)
    assert actual.activation_bytes == round(activation * GIB)
    assert actual.non_torch_bytes == round(non_torch * GIB)


def test_the_total_of_the_card_where_it_is_logged() -> None:
    assert read_log(V0).total_bytes == round(31.74 * GIB)
    refused = "ValueError: Free memory on device (3.21/4.0 GiB) on startup is less than desired GPU memory utilization"
    assert read_log(refused).total_bytes == 4 * GIB
    assert read_log(refused).refusal == refused


def test_consumed_memory_is_not_taken_for_weights() -> None:
    """A wording of 2026 that has weights and non-torch in one number."""
    text = "Actual usage is 74.75 GiB for consumed memory (weights + non-torch), 1.85 GiB for peak activation, and 0.28"
    assert read_log(text).weights_bytes is None


def test_the_least_of_several_engines_counts() -> None:
    second = LLAMA.replace("19.28", "18.00").replace("157,936", "147,000").replace("1.20x", "1.12x")
    actual = read_log(LLAMA + second.removeprefix(START))
    assert (actual.kv_cache_tokens, actual.concurrency) == (147000, 1.12)
    assert actual.kv_cache_bytes == 18 * GIB


def test_an_appended_log_is_read_from_its_last_start() -> None:
    assert read_log(TOO_SMALL + LLAMA).refusal is None
    assert read_log(LLAMA + TOO_SMALL).kv_cache_tokens is None
    assert read_log(LLAMA + TOO_SMALL).estimated_max_model_len == 976


def test_metrics() -> None:
    assert read_metrics(METRICS).kv_cache_tokens == 9000 * 16
    assert read_engine(METRICS) == read_metrics(METRICS)
    assert (read_engine(NEW_METRICS).kv_cache_tokens, read_engine(NEW_METRICS).concurrency) == (20480, 2.5)


def test_a_kept_promise_has_predicted_and_actual() -> None:
    contract = check_contract(report(), LLAMA)
    assert contract.kept
    assert (contract.promised_max_model_len, contract.given_max_model_len) == (131072, 131072)
    terms = {term.name: term for term in contract.terms}
    assert terms["kv_cache_bytes"].actual == round(19.28 * GIB)
    assert terms["kv_cache_bytes"].predicted == report().kv_cache_bytes
    assert terms["weights_bytes"].residual == round(14.99 * GIB) - report().weights_bytes
    assert set(terms) == {"weights_bytes", "kv_cache_bytes", "cuda_graph_bytes"}


@pytest.mark.parametrize(
    ("text", "given_length"),
    [
        (LLAMA.replace("131,072", "98,304"), 98304),  # --max-model-len auto
        (LLAMA.replace("1.20x", "0.75x"), 98304),
        (TOO_SMALL, 0),
        (START + "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB\n", 0),
        (START + "ValueError: No available memory for the cache blocks. Try increasing\n", 0),
        (METRICS.replace("9000", "6144"), 98304),
    ],
)
def test_less_context_than_promised_breaks_the_contract(text: str, given_length: int) -> None:
    with pytest.raises(ContractBroken, match=r"promised 131072\. .*max_model_len") as broken:
        check_contract(report(), text)
    assert broken.value.contract.given_max_model_len == given_length
    assert not broken.value.contract.kept


def test_an_engine_that_serves_more_keeps_it() -> None:
    assert check_contract(report(8192), LLAMA).given_max_model_len == 131072
    assert check_contract(report(8192), METRICS).kept


def test_the_engines_last_word_is_in_the_message() -> None:
    with pytest.raises(ContractBroken, match="estimated maximum model length is 976"):
        check_contract(report(), TOO_SMALL)


@pytest.mark.parametrize("text", ["", "INFO hello\n", START, PHI_4, "vllm:num_requests_running 0\n"])
def test_nothing_is_concluded_from_a_log_without_the_cache(text: str) -> None:
    with pytest.raises(ContractUnread, match="required: the lines from its start"):
        check_contract(report(), text)


def test_bytes_of_another_device_are_not_compared() -> None:
    contract = check_contract(report(2048), CPU_LOG)
    assert contract.kept
    assert contract.terms == ()
    assert "ran on CPU" in contract.notes[0]


def test_a_part_outside_the_band_is_named() -> None:
    contract = compare(report(), read_log(LLAMA.replace("19.28", "29.28")))
    assert contract.kept
    assert any("kv cache came out +" in text for text in contract.notes)
    assert not any("weights" in text for text in contract.notes)


@given(st.text(alphabet=st.sampled_from("KV cache size: 0123456789,.xGiB{}\"=\n'()-tokens"), max_size=300))
def test_any_text_is_read(text: str) -> None:
    actual = read_engine(text)
    assert actual.kv_cache_tokens is None or "tokens" in text
    assert isinstance(actual, Actual)


def start(log: str, residual_mib: int, version: str = "0.23", gpu: str = "nvidia-l4") -> Start:
    return Start(log, version, gpu, "m", (Term("kv_cache_bytes", 10 * GIB, 10 * GIB + residual_mib * 2**20),))


def test_residuals_per_version_and_gpu() -> None:
    rows = learn([start("a", -100), start("b", 300), start("c", 200), start("d", 5, "0.19"), start("e", 7, gpu="x")])
    assert [(row.engine_version, row.gpu, row.starts) for row in rows] == [
        ("0.19", "nvidia-l4", 1), ("0.23", "nvidia-l4", 3), ("0.23", "x", 1),
    ]  # fmt: skip
    assert (rows[1].median_bytes, rows[1].least_bytes, rows[1].most_bytes) == (200 << 20, -100 << 20, 300 << 20)


def test_the_note_is_of_this_version_on_this_gpu() -> None:
    rows = learn([start("a", -1024), start("b", 1024), start("c", 512)])
    assert note(rows, "nvidia-l4", "0.23.1") == (
        "3 starts of vLLM 0.23 on nvidia-l4 left +0.50 GiB (median; -1.00 to +1.00) for the KV cache against the estimate."
    )
    assert note(rows, "nvidia-l4", "0.24.0") is None
    assert note(rows, "nvidia-t4", "0.23.0") is None


@pytest.mark.parametrize(("version", "short"), [("0.23.0", "0.23"), ("v0.26.1rc1.dev608", "0.26"), ("0.32", "0.32")])
def test_minor_versions(version: str, short: str) -> None:
    assert minor(version) == short


def test_starts_are_kept_and_one_log_counts_once(tmp_path: Path) -> None:
    assert load_starts(tmp_path / "state") == ()
    add_starts(tmp_path / "state", [start("a", 1), start("b", 2)])
    everything = add_starts(tmp_path / "state", [start("b", 3)])
    assert load_starts(tmp_path / "state") == everything == (start("a", 1), start("b", 3))
    assert [path.name for path in (tmp_path / "state").iterdir()] == [FILE]


@pytest.mark.parametrize("content", ["", "{", "{}", '[{"log": 1}]'])
def test_a_damaged_file_of_starts_is_not_overwritten(tmp_path: Path, content: str) -> None:
    (tmp_path / FILE).write_text(content)
    with pytest.raises(ResidualsInvalid, match="calibrate again"):
        add_starts(tmp_path, [start("a", 1)])
    assert (tmp_path / FILE).read_text() == content


def test_contracts_go_through_json() -> None:
    contract = check_contract(report(), LLAMA)
    assert TypeAdapter(Contract).validate_python(json.loads(json.dumps(asdict(contract)))) == contract
