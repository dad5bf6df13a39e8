"""config.json: dense decoders become a shape, everything else is refused by the name of its field."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.fit.config import ConfigInvalid, UnsupportedModel, parse_config
from serving.fit.files import read_config
from serving.fit.shapes import Attention, Dense, Experts, Latent, Recurrent
from tests.fix_fit import DATA, LLAMA_8B, SMOLLM2, TINY

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def attention_of(config) -> Attention:
    mixer = parse_config(config).layers[0].mixer
    assert isinstance(mixer, Attention)
    return mixer


def config_of(name: str) -> dict:
    return json.loads((DATA / "fit_configs" / f"{name}.json").read_text())


def test_llama_3_1_8b() -> None:
    shape, attention = parse_config(LLAMA_8B), attention_of(LLAMA_8B)
    assert (attention.heads, attention.kv_heads, attention.head_dim) == (32, 8, 128)  # 4096 / 32 heads
    assert (shape.dtype, shape.tie_word_embeddings, shape.max_position_embeddings) == ("bfloat16", False, 131072)
    assert shape.layers[0].mlp == Dense(14336)


@pytest.mark.parametrize("path", sorted((DATA / "fit_configs").glob("*.json")), ids=lambda path: path.stem)
def test_real_configs_are_accepted(path) -> None:
    assert len(parse_config(json.loads(path.read_text())).layers) >= 12


def test_gemma_3_has_one_global_layer_in_six() -> None:
    layers = parse_config(config_of("google__gemma-3-27b-it")).layers
    windows = [layer.mixer.window for layer in layers]
    assert windows.count(None) == 10 and windows.count(1024) == 52
    without_list = config_of("google__gemma-3-27b-it")
    del without_list["text_config"]["layer_types"]
    assert [layer.mixer.window for layer in parse_config(without_list).layers] == windows


def test_deepseek_has_latent_attention_and_dense_layers_first() -> None:
    layers = parse_config(config_of("deepseek-ai__DeepSeek-V2.5")).layers
    assert isinstance(layers[0].mlp, Dense) and isinstance(layers[1].mlp, Experts)
    assert layers[1].mlp == Experts(160, 6, 1536, shared=2 * 1536)
    assert isinstance(layers[0].mixer, Latent) and (layers[0].mixer.kv_rank, layers[0].mixer.rope_dim) == (512, 64)


def test_qwen_3_8_has_a_state_in_three_layers_of_four() -> None:
    layers = parse_config(config_of("Qwen__Qwen3.8-27B")).layers
    assert [isinstance(layer.mixer, Recurrent) for layer in layers[:4]] == [True, True, True, False]
    assert layers[0].mixer.float32_state


def test_gemma_4_shares_caches_and_embeds_every_layer() -> None:
    shape = parse_config(config_of("google__gemma-4-E2B-it-qat-w4a16-ct"))
    assert sum(layer.mixer.shares_cache for layer in shape.layers) == 20
    assert shape.layers[-1].mlp.width == 2 * shape.layers[0].mlp.width
    assert shape.extra_parameters > 262144 * 35 * 256


def test_gpt_oss_alternates_and_stores_experts_in_four_bits() -> None:
    shape = parse_config(config_of("openai__gpt-oss-20b"))
    assert [layer.mixer.window for layer in shape.layers[:4]] == [128, None, 128, None]
    assert shape.quantisation.method == "mxfp4" and shape.quantisation.experts_only


@pytest.mark.skipif(not SMOLLM2.is_dir(), reason="SmolLM2 is not set up")
def test_real_smollm2() -> None:
    shape = read_config(SMOLLM2)
    assert (shape.num_hidden_layers, shape.vocab_size) == (30, 49152)
    assert shape.layers[0].mixer.kv_heads * shape.layers[0].mixer.head_dim == 192


def test_defaults_of_absent_fields() -> None:
    config = {
        key: value for key, value in TINY.items() if key not in ("num_key_value_heads", "dtype", "tie_word_embeddings")
    }
    attention = attention_of(config)
    assert (attention.kv_heads, attention.head_dim) == (4, 4)
    shape = parse_config(config)
    assert (shape.dtype, shape.tie_word_embeddings) == ("float32", False)
    assert parse_config(config | {"torch_dtype": "float16"}).dtype == "float16"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("architectures", ["WhisperForConditionalGeneration"]),
        ("architectures", ["RWKVForCausalLM"]),
        ("auto_map", {"AutoModel": "x.Y"}),
        ("quantization_config", {"quant_method": "exl2"}),
        ("is_encoder_decoder", True),
        ("layer_types", ["full_attention", "hyena"]),
        ("dtype", "float8_e4m3fn"),
    ],
)
def test_what_is_not_modelled_is_refused_by_name(field, value) -> None:
    words = "quant_method" if field == "quantization_config" else field
    with pytest.raises(UnsupportedModel, match=words):
        parse_config(TINY | {field: value})


def test_code_beside_an_architecture_that_vllm_has_is_said_and_not_run() -> None:
    """phi-2 was published with code of its own; a Llama that brings code is something else (refused above)."""
    shape = parse_config(config_of("microsoft__phi-2"))
    assert any("auto_map" in note for note in shape.notes)


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
    assert attention_of(TINY | {"sliding_window": 4096}).window == 4096


@pytest.mark.parametrize(
    ("rope", "positions"),
    [
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}, 512),
        ({"type": "yarn", "factor": 4.0}, 1024),
        ({"rope_type": "dynamic", "factor": 2.0}, 512),
        ({"rope_type": "llama3", "factor": 8.0}, 256),
        ({"type": "mrope", "mrope_section": [1, 1]}, 256),
    ],
)
def test_rope_scaling_stretches_the_positions(rope, positions) -> None:
    """TINY has 256; vllm/config/model.py multiplies by the factor, for yarn from the original length."""
    assert parse_config(TINY | {"rope_scaling": rope}).max_position_embeddings == positions


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
        ("num_hidden_layers", 2**31 - 1),
        ("layer_types", ["full_attention"]),
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
    assert shape.hidden_size > 0 and len(shape.layers) >= 1


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
