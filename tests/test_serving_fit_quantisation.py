"""Which weights a checkpoint stores in fewer bits: quantization_config of real publishers, words, and skipped modules."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.fit.quantisation import Quantisation, UnsupportedQuantisation, by_config, by_flag, by_word

INT4 = {"num_bits": 4, "type": "int", "group_size": 128, "strategy": "group"}


@pytest.mark.parametrize(
    ("config", "method", "bits"),
    [
        ({"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True}, "awq", 4 + 20 / 128),
        ({"quant_method": "gptq", "bits": 4, "group_size": 32}, "gptq", 4.5),
        ({"quant_method": "gptq", "bits": 8, "group_size": -1}, "gptq", 8),
        ({"quant_method": "auto-round", "bits": 4, "group_size": 128}, "gptq", 4 + 16 / 128),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8", 8 + 32 / 16384),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes", 4 + 8 / 64 + 32 / 16384),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "bitsandbytes", 8),
        ({"quant_method": "mxfp4"}, "mxfp4", 4.25),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "modelopt_fp4", 4.5),
        (
            {"quant_method": "compressed-tensors", "config_groups": {"g": {"weights": INT4}}},
            "compressed-tensors",
            4.125,
        ),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"g": {"weights": {"num_bits": 8, "type": "float"}}},
            },
            "compressed-tensors",
            8,
        ),
    ],
)
def test_bits_of_published_formats(config, method, bits) -> None:
    found = by_config(config)
    assert found is not None and (found.method, found.stated) == (method, True)
    assert found.bits == pytest.approx(bits)


@pytest.mark.parametrize(
    ("word", "method"),
    [
        ("TheBloke/Mixtral-8x7B-AWQ", "awq"), ("Qwen1.5-7B-Chat-GPTQ-Int4", "gptq"), ("x-FP8-dynamic", "fp8"),
        ("quantized.w4a16", "compressed-tensors"), ("quantized.w8a8", "compressed-tensors"), ("bnb-4bit", "bitsandbytes"),
        ("Gemma-4-31B-IT-NVFP4", "modelopt_fp4"), ("bf16", None), ("Llama-3.1-8B-Instruct", None), (None, None),
    ],
)  # fmt: skip
def test_words(word, method) -> None:
    found = by_word(word)
    assert (found and found.method) == method
    assert found is None or not found.stated


def test_a_flag_that_is_no_method_is_refused() -> None:
    assert by_flag(None) is None
    with pytest.raises(UnsupportedQuantisation, match="exl2"):
        by_flag("exl2")


@pytest.mark.parametrize(
    ("pattern", "module", "skipped"),
    [
        ("lm_head", "lm_head", True),
        ("model.layers.0.mlp.gate", "model.layers.*.mlp.gate", True),
        ("model.layers.0.mlp.gate", "model.layers.*.mlp.gate_proj", False),
        ("model.language_model.layers.3.self_attn*", "model.layers.*.self_attn.q_proj", True),
        ("model.layers.*.self_attn", "model.layers.*.self_attn.o_proj", True),
        ("re:.*self_attn.*", "model.layers.*.self_attn.k_proj", True),
        ("re:.*down_proj$", "model.layers.*.mlp.up_proj", False),
        ("re:.*", "model.layers.*.mlp.up_proj", False),
    ],
)
def test_modules_left_in_16_bits(pattern, module, skipped) -> None:
    assert Quantisation("fp8", 8, skipped=(pattern,)).skips(module) == skipped


def test_scales_for_an_fp8_cache() -> None:
    assert by_config({"quant_method": "modelopt", "kv_cache_scheme": {"num_bits": 8, "type": "float"}}).fp8_cache
    assert not by_config({"quant_method": "fp8"}).fp8_cache


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = [
    "quant_method",
    "bits",
    "group_size",
    "weight_block_size",
    "config_groups",
    "ignore",
    "quant_algo",
    "kv_cache_scheme",
]
METHODS = st.sampled_from(["awq", "gptq", "fp8", "compressed-tensors", "bitsandbytes", "mxfp4", "modelopt"])


@given(METHODS, st.dictionaries(st.sampled_from(FIELDS), JSON))
def test_fuzzed_configs_give_bits_or_one_error(method, fields) -> None:
    try:
        found = by_config({"quant_method": method} | fields)
    except UnsupportedQuantisation:
        return
    assert found is not None and 2 <= found.bits <= 24
