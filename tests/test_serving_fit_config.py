"""config.json: dense decoders become a shape, everything else is refused by the name of its field."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.fit.config import ConfigInvalid, UnsupportedModel, parse_config
from serving.fit.preflight import read_config
from tests.fix_fit import DATA, LLAMA_8B, SMOLLM2, TINY

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def test_llama_3_1_8b() -> None:
    shape = parse_config(LLAMA_8B)
    assert (shape.head_dim, shape.query_size, shape.key_value_size) == (128, 4096, 1024)  # 4096 / 32 heads; 8 KV heads
    assert (shape.dtype, shape.tie_word_embeddings, shape.max_position_embeddings) == ("bfloat16", False, 131072)


@pytest.mark.parametrize("name", sorted(json.loads((DATA / "fit_configs.json").read_text())))
def test_real_dense_configs_are_accepted(name) -> None:
    config = json.loads((DATA / "fit_configs.json").read_text())[name]["config"]
    assert parse_config(config).num_hidden_layers == config["num_hidden_layers"]


@pytest.mark.skipif(not SMOLLM2.is_dir(), reason="SmolLM2 is not set up")
def test_real_smollm2() -> None:
    shape = read_config(SMOLLM2)
    assert (shape.num_hidden_layers, shape.key_value_size, shape.vocab_size) == (30, 192, 49152)


def test_defaults_of_absent_fields() -> None:
    config = {
        key: value for key, value in TINY.items() if key not in ("num_key_value_heads", "dtype", "tie_word_embeddings")
    }
    shape = parse_config(config)
    assert (shape.num_key_value_heads, shape.head_dim, shape.dtype, shape.tie_word_embeddings) == (
        4,
        4,
        "float32",
        False,
    )
    assert parse_config(config | {"torch_dtype": "float16"}).dtype == "float16"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("architectures", ["MixtralForCausalLM"]),
        ("architectures", ["LlamaForCausalLM", "Other"]),
        ("auto_map", {"AutoModel": "x.Y"}),
        ("quantization_config", {"quant_method": "awq"}),
        ("num_experts", 128),
        ("num_local_experts", 8),
        ("kv_lora_rank", 512),
        ("layer_types", ["full_attention", "sliding_attention"]),
        ("layer_types", "full_attention"),
        ("sliding_window", 4096),
        ("rope_scaling", {"type": "yarn", "factor": 4.0}),
        ("rope_parameters", {"rope_type": "dynamic"}),
        ("vision_config", {"hidden_size": 8}),
        ("dtype", "float8_e4m3fn"),
    ],
)
def test_what_is_not_modelled_is_refused_by_name(field, value) -> None:
    with pytest.raises(UnsupportedModel, match=field):
        parse_config(TINY | {field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sliding_window", None),
        ("layer_types", ["full_attention"] * 2),
        ("quantization_config", None),
        ("num_experts", 0),
    ],
)
def test_fields_that_say_nothing_special_pass(field, value) -> None:
    assert parse_config(TINY | {field: value}) == parse_config(TINY)


def test_a_window_that_is_switched_off_passes() -> None:
    assert parse_config(TINY | {"sliding_window": 4096, "use_sliding_window": False}) == parse_config(TINY)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hidden_size", None),
        ("hidden_size", 0),
        ("hidden_size", -8),
        ("hidden_size", True),
        ("hidden_size", 16.0),
        ("hidden_size", 10**30),
        ("hidden_size", 18),
        ("num_key_value_heads", 3),
        ("vocab_size", "64"),
        ("tie_word_embeddings", "yes"),
        ("rope_scaling", 4),
        ("architectures", None),
        ("architectures", []),
        ("architectures", [1]),
    ],
)
def test_broken_fields_are_named(field, value) -> None:
    with pytest.raises(ConfigInvalid, match=field):
        parse_config(TINY | {field: value})


@given(
    st.dictionaries(
        st.sampled_from([*TINY, "rope_scaling", "layer_types", "head_dim", "sliding_window", "auto_map"]), JSON
    )
)
def test_fuzzed_fields_raise_only_the_two_errors(changes) -> None:
    try:
        shape = parse_config(TINY | changes)
    except (ConfigInvalid, UnsupportedModel):
        return
    assert shape.hidden_size > 0 and shape.num_attention_heads % shape.num_key_value_heads == 0


@given(JSON | st.binary(max_size=60))
def test_fuzzed_files_raise_only_the_two_errors(tmp_path_factory, content) -> None:
    folder = tmp_path_factory.mktemp("base")
    (folder / "config.json").write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    with pytest.raises((ConfigInvalid, UnsupportedModel)):
        read_config(folder)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a": ' * 5_000, '{"a": 1, "a": 2}', "\ufeff{}", "1" * 5000, "null", ""]
)
def test_hostile_files(tmp_path, text) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigInvalid, match=r"config\.json"):
        read_config(tmp_path)


def test_missing_file(tmp_path) -> None:
    with pytest.raises(ConfigInvalid, match="No such file"):
        read_config(tmp_path / "absent")
