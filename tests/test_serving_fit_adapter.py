"""Adapters: what is read of a PEFT folder, and what vLLM would not load on this base."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from serving.fit import AdapterRefused, check_base, read_adapter
from tests.fix_fit import QWEN25_05B, TINY, shape_of, write_adapter

MODEL = shape_of(TINY)


def test_shape_of_an_adapter(tmp_path) -> None:
    adapter = read_adapter(write_adapter(tmp_path))
    assert (adapter.r, adapter.target_modules, adapter.base_model) == (4, ("down_proj", "q_proj"), "org/base")
    assert adapter.nbytes == (tmp_path / "adapter_model.safetensors").stat().st_size
    assert len(adapter.tensors) == 2 * 2 * 2  # layers × modules × (A, B)
    check_base(adapter, MODEL, ["base"])


def test_the_largest_rank_of_the_pattern_counts(tmp_path) -> None:
    assert read_adapter(write_adapter(tmp_path, r=4, rank_pattern={"q_proj": 24})).r == 24


@pytest.mark.parametrize("names", [["org/base"], ["/models/Base"], ["x", "base"]])
def test_the_last_part_of_the_name_decides(tmp_path, names) -> None:
    adapter = read_adapter(write_adapter(tmp_path))
    check_base(adapter, MODEL, names)
    with pytest.raises(AdapterRefused):
        check_base(adapter, MODEL, [f"{name}-2" for name in names])


def test_another_base_by_name(tmp_path) -> None:
    with pytest.raises(AdapterRefused, match=r"trained on 'org/base'; the base to serve is other"):
        check_base(read_adapter(write_adapter(tmp_path)), MODEL, ["org/other"])


@pytest.mark.parametrize("change", [{"num_hidden_layers": 1}, {"intermediate_size": 32}, QWEN25_05B])
def test_another_base_by_its_matrices(tmp_path, change) -> None:
    adapter = read_adapter(write_adapter(tmp_path))
    with pytest.raises(AdapterRefused, match="Serve the adapter on the base it was trained on"):
        check_base(adapter, shape_of(TINY | change), ["base"])


@pytest.mark.parametrize(
    ("architecture", "accepted"),
    [("LlamaForCausalLM", True), ("Qwen2ForCausalLM", False)],
    ids=["with slots", "without"],
)
def test_the_head_can_be_adapted_where_vllm_has_slots_for_it(tmp_path, architecture, accepted) -> None:
    write_adapter(tmp_path)
    head = "base_model.model.lm_head.lora_"
    save_file(
        {f"{head}A.weight": np.zeros((4, 16), np.float32), f"{head}B.weight": np.zeros((64, 4), np.float32)},
        tmp_path / "adapter_model.safetensors",
    )
    adapter = read_adapter(tmp_path)
    if accepted:
        check_base(adapter, shape_of(TINY | {"architectures": [architecture]}), ["base"])
    else:
        with pytest.raises(AdapterRefused):
            check_base(adapter, shape_of(TINY | {"architectures": [architecture]}), ["base"])


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"peft_type": "IA3"}, "peft_type 'IA3'"),
        ({"use_dora": True}, "use_dora"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"bias": "all"}, "bias 'all'"),
        ({"r": 0}, "rank 0"),
        ({"r": "8"}, "rank '8'"),
        ({"r": True}, "rank True"),
        ({"r": 2}, "says at most 2"),
        ({"rank_pattern": {"q_proj": None}}, "rank"),
        ({"rank_pattern": 3.5}, "rank"),
        ({"base_model_name_or_path": None}, "base_model_name_or_path"),
        ({"base_model_name_or_path": ""}, "base_model_name_or_path"),
    ],
)
def test_config_that_vllm_refuses(tmp_path, fields, words) -> None:
    with pytest.raises(AdapterRefused, match=words):
        read_adapter(with_config(write_adapter(tmp_path), fields))


def with_config(folder: Path, fields: dict) -> Path:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    return folder


def test_pickled_adapter(tmp_path) -> None:
    write_adapter(tmp_path)
    (tmp_path / "adapter_model.safetensors").rename(tmp_path / "adapter_model.bin")
    with pytest.raises(AdapterRefused, match=r"pickled weights \(adapter_model\.bin\)"):
        read_adapter(tmp_path)


def test_no_weights_and_no_folder(tmp_path) -> None:
    write_adapter(tmp_path)
    (tmp_path / "adapter_model.safetensors").unlink()
    with pytest.raises(AdapterRefused, match="no weights"):
        read_adapter(tmp_path)
    with pytest.raises(AdapterRefused, match="No such file"):
        read_adapter(tmp_path / "absent")


A, B = np.zeros((4, 16), np.float32), np.zeros((16, 4), np.float32)
QUERY = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    "tensors",
    [
        {},
        {f"{QUERY}.lora_A.weight": A},
        {f"{QUERY}.lora_A.weight": A, f"{QUERY}.lora_A": A},
        {f"{QUERY}.lora_A.weight": A, f"{QUERY}.lora_B.weight": B, f"{QUERY}.lora_magnitude_vector": A},
        {f"{QUERY}.lora_A.weight": np.zeros(4, np.float32), f"{QUERY}.lora_B.weight": B},
        {"model.layers.0.self_attn.q_proj.weight": B},
    ],
)
def test_tensors_that_are_no_lora_pairs(tmp_path, tensors) -> None:
    write_adapter(tmp_path)
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    with pytest.raises(AdapterRefused):
        read_adapter(tmp_path)


VALUES = (
    st.none() | st.booleans() | st.integers() | st.text(max_size=6) | st.lists(st.integers(), max_size=2) | st.just({})
)


@given(
    st.dictionaries(
        st.sampled_from(["r", "peft_type", "bias", "rank_pattern", "base_model_name_or_path", "use_dora"]), VALUES
    )
)
def test_fuzzed_config_raises_only_adapter_refused(tmp_path_factory, fields) -> None:
    folder = write_adapter(tmp_path_factory.getbasetemp() / "fuzzed_adapter")
    try:
        assert read_adapter(with_config(folder, fields)).r >= 4
    except AdapterRefused:
        return


@given(st.binary(max_size=80))
def test_fuzzed_files_raise_only_adapter_refused(tmp_path_factory, content) -> None:
    folder = write_adapter(tmp_path_factory.getbasetemp() / "fuzzed_files")
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        (folder / name).write_bytes(content)
        with pytest.raises(AdapterRefused):
            read_adapter(folder)
