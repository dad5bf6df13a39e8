"""config.json of a model as a ModelShape. Pure.

Families are in families.py, layers are built in layers.py, encoders in towers.py. An architecture that is not there is
refused by name, because a layout that is not modelled must never get a verdict; so is a repository that brings its own
code for an architecture that vLLM runs by itself.
"""

import re
from dataclasses import replace

from serving.fit.families import BY_CLASS, FAMILIES, FORMERLY_OWN_CODE, WHOLES, Family
from serving.fit.fields import (
    MAX_VALUE,
    Config,
    ConfigInvalid,
    UnsupportedModel,
    count,
    flag,
    invalid,
    number,
    section,
    size,
    unsupported,
    words,
)
from serving.fit.layers import build_layers, extra_parameters, rotary_dim
from serving.fit.quantisation import MXFP4, Quantisation, UnsupportedQuantisation, by_config
from serving.fit.shapes import Attention, ModelShape, Recurrent
from serving.fit.strict_json import shown
from serving.fit.towers import build_towers

__all__ = ["MAX_VALUE", "ConfigInvalid", "UnsupportedModel", "parse_config"]

DTYPES = {"bfloat16": "bfloat16", "float16": "float16", "half": "float16", "float32": "float32", "float": "float32"}
# Where config.json leaves the length to the class: 2048 in the older ones, 131072 in Gemma 3, Mllama and the like.
SHORT_BY_CLASS, SHORT_POSITIONS, LONG_POSITIONS = (
    ("falcon", "gpt_neox", "opt", "phi", "phi-msft", "llama"),
    2048,
    131072,
)
OWN_LENGTH = ("llama3", "default", "su", "longrope", "mrope", "proportional")  # rope types that leave the length alone


def parse_config(config: Config) -> ModelShape:
    """Raises ConfigInvalid, UnsupportedModel."""
    kind = _model_type(config)
    text = _text(config)
    text_kind = _text_type(config, text, kind)
    family = FAMILIES[text_kind]
    _refuse_own_code(config, kind, text_kind)
    layers = build_layers(text, family, text_kind)
    return ModelShape(
        architecture=_architecture(config, kind),
        model_type=text_kind,
        family=_family_name(family, layers),
        hidden_size=size(text, "hidden_size", "n_embd", "d_model"),
        vocab_size=_vocabulary(config, text, text_kind),
        max_position_embeddings=_positions(text, text_kind),
        tie_word_embeddings=_tied(config, text, family),
        dtype=_dtype(config, text),
        layers=layers,
        streams=size(text, "hc_mult", "hc_count", default=1, most=64),
        rotary_dim=0 if family.learned_positions else rotary_dim(text, layers),
        extra_parameters=extra_parameters(text, family, text_kind),
        towers=build_towers(config, text, kind),
        quantisation=_quantisation(config, text),
        lora_on_embeddings=family.lora_on_embeddings and kind == text_kind,
        notes=_notes(config),
        unsure=family.unsure,
    )


def _architecture(config: Config, kind: str) -> str:
    names = words(config, "architectures")
    if names is not None and len(names) != 1:
        raise invalid("architectures", f"a list of {len(names)}", "a list of one class name")
    return names[0] if names else kind


def _model_type(config: Config) -> str:
    """model_type; else by the class; else nemotron_h, which has a layer pattern that no other family has."""
    names = words(config, "architectures") or ()
    kind = config.get("model_type")
    if kind is None:
        if "hybrid_override_pattern" in config:
            return "nemotron_h"
        if not names:
            raise invalid("architectures", "absent, and so is model_type", "the class that vLLM chooses by")
        kind = BY_CLASS.get(names[0], names[0])
    if not isinstance(kind, str):
        raise invalid("model_type", shown(kind), "a word")
    known = kind in FAMILIES or kind in WHOLES
    if not known or (kind in BY_CLASS.values() and names and _foreign_class(names[0], kind)):
        found = names[0] if names else kind
        raise unsupported("architectures", repr(found[:60]), "the families in serving/fit/families.py")
    return kind


def _foreign_class(name: str, kind: str) -> bool:
    """A class that is not the one of this model_type: a reward model, a classifier, a family that borrows the type."""
    return (name in BY_CLASS and BY_CLASS[name] != kind) or not name.endswith(
        ("ForCausalLM", "ForConditionalGeneration", "LMHeadModel")
    )


def _text(config: Config) -> Config:
    """The part that describes the language model; shared fields above it are its defaults."""
    part = section(config, "text_config", "llm_config", "language_config", "thinker_config")
    return config if part is None else part


def _text_type(config: Config, text: Config, kind: str) -> str:
    if text is config:
        if kind not in FAMILIES:
            raise invalid("text_config", "absent", f"the language model of a {kind}")
        return kind
    found = text.get("model_type") or WHOLES.get(kind) or kind
    if not isinstance(found, str) or found not in FAMILIES:
        raise unsupported("text_config.model_type", shown(found), "the families in serving/fit/families.py")
    return found


def _refuse_own_code(config: Config, kind: str, text_kind: str) -> None:
    if config.get("auto_map") and kind not in FORMERLY_OWN_CODE and text_kind not in FORMERLY_OWN_CODE:
        raise UnsupportedModel(
            "auto_map in config.json points to code in the repository; custom code is never run. "
            "Use a checkpoint of an architecture that vLLM has itself."
        )
    if config.get("is_encoder_decoder"):
        raise unsupported("is_encoder_decoder", "true", "decoders")


def _family_name(family: Family, layers: tuple[object, ...]) -> str:
    mixers = [getattr(layer, "mixer", None) for layer in layers]
    if any(isinstance(mixer, Recurrent) for mixer in mixers):
        return "hybrid"
    if family.kind in ("mla", "deepseek4"):
        return "mla"
    if any(isinstance(mixer, Attention) and mixer.window for mixer in mixers):
        return "sliding"
    return "moe" if family.kind == "moe" else "dense"


def _vocabulary(config: Config, text: Config, kind: str) -> int:
    default = 262208 if kind.startswith("gemma3") else None
    return size(text, "vocab_size", default=count(config, "vocab_size") or default)


def _positions(text: Config, kind: str) -> int:
    """max_position_embeddings, stretched by rope scaling as vllm/config/model.py _get_and_verify_max_len does."""
    default = SHORT_POSITIONS if kind in SHORT_BY_CLASS else LONG_POSITIONS
    positions = size(text, "max_position_embeddings", "n_positions", "max_sequence_length", default=default)
    rope = section(text, "rope_scaling") or section(text, "rope_parameters")
    if rope is None or any(isinstance(part, dict) for part in rope.values()) or kind.startswith("gemma3"):
        return positions
    word = rope.get("rope_type", rope.get("type", "default"))
    if not isinstance(word, str):
        raise invalid("rope_scaling", shown(word), "a rope type")
    if word in OWN_LENGTH or "mrope_section" in rope:
        return positions
    if word == "yarn":
        positions = size(rope, "original_max_position_embeddings", default=positions)
    return max(int(positions * number(rope, "factor", 1.0)), 1)


def _tied(config: Config, text: Config, family: Family) -> bool:
    """The top level decides, as in transformers' composite models; then the language model's part; then the family."""
    inner = flag(text, "tie_word_embeddings", family.tied)
    return flag(config, "tie_word_embeddings", inner)


def _dtype(config: Config, text: Config) -> str:
    """transformers 5 writes `dtype`, older ones `torch_dtype`; float32 where nothing is said."""
    for source in (config, text):
        value = source.get("dtype") or source.get("torch_dtype")
        if value is not None:
            name = value.removeprefix("torch.") if isinstance(value, str) else ""
            if name not in DTYPES:
                raise unsupported("dtype", shown(value), " or ".join(sorted(set(DTYPES.values()))))
            return DTYPES[name]
    return "float32"


def _quantisation(config: Config, text: Config) -> Quantisation | None:
    for source in (config, text):
        for field in ("quantization_config", "compression_config"):
            if source.get(field):
                try:
                    found = by_config(source[field])
                    four_bits = found is not None and text.get("expert_dtype") == "fp4"
                    return replace(found, expert_bits=MXFP4.bits) if found and four_bits else found
                except (UnsupportedQuantisation, re.error, ValueError) as error:
                    raise UnsupportedModel(str(error)) from error
    return None


def _notes(config: Config) -> tuple[str, ...]:
    if config.get("auto_map"):
        return (
            "config.json names code of its own (auto_map); vLLM's class of this architecture is assumed, "
            "and that code is not run.",
        )
    return ()
