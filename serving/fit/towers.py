"""Vision and audio encoders: their parameters, and the largest item that the engine encodes in its profile run. Pure.

An encoder is a stack of transformer layers with a patch embedding and a projector; the parameters follow from its sizes
(vllm/model_executor/models/siglip.py, clip.py, pixtral.py, qwen2_vl.py, qwen2_5_vl.py, qwen3_vl.py, intern_vit.py,
mllama4.py, gemma4_mm.py). Audio encoders are counted as conformers (gemma4) or Whisper layers.
"""

from serving.fit.fields import Config, count, section, size
from serving.fit.shapes import Tower

# Qwen2-VL's processor allows 12,845,056 pixels (preprocessor_config.json max_pixels): 65,536 patches of 14 × 14.
QWEN_PIXELS = 12_845_056
# What the published checkpoint has where config.json leaves its encoder to the class's defaults.
LLAMA4_VISION = {
    "hidden_size": 1408,
    "num_hidden_layers": 34,
    "intermediate_size": 5632,
    "image_size": 336,
    "patch_size": 14,
}
PHI3_CLIP = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "intermediate_size": 4096,
    "image_size": 336,
    "patch_size": 14,
}
TILES = {"llama4": 17, "internvl_chat": 13, "internvl": 13, "mllama": 4, "llava_next": 5, "phi3_v": 17}
GATED = ("pixtral", "qwen2_5_vl", "gemma4", "gemma4_vision")  # encoders whose MLP has a gate


def build_towers(config: Config, text: Config, kind: str) -> tuple[Tower, ...]:
    """Raises ConfigInvalid. Models that are text alone have none."""
    found = []
    vision = _vision(config, kind)
    if vision is not None:
        found.append(_vision_tower(vision, text, kind))
    audio = section(config, "audio_config")
    if audio is not None:
        found.append(_audio_tower(audio, text))
    return tuple(found)


def _vision(config: Config, kind: str) -> Config | None:
    vision = section(config, "vision_config", "vision_tower_config")
    if vision is None and kind == "llama4":
        return LLAMA4_VISION
    if vision is None and kind == "phi3_v":
        return PHI3_CLIP
    return vision


def _vision_tower(vision: Config, text: Config, kind: str) -> Tower:
    hidden = size(vision, "embed_dim", "hidden_size", default=1024)
    layers = size(vision, "depth", "num_hidden_layers", default=24) + count(vision, "num_global_layers")
    width = size(vision, "intermediate_size", default=4 * hidden)
    if "embed_dim" in vision:
        width = size(vision, "mlp_ratio", default=4) * hidden
    gated = kind in GATED or str(vision.get("model_type")) in GATED
    patch = size(vision, "patch_size", "spatial_patch_size", default=14)
    heads = size(vision, "num_heads", "num_attention_heads", "attention_heads", default=16)
    block = 4 * hidden * hidden + (3 if gated else 2) * hidden * width + 10 * hidden
    patches, tokens = _largest_item(vision, kind, patch)
    positions = count(
        vision, "num_position_embeddings", "position_embedding_size", default=(patches if patches < 5000 else 0)
    )
    fixed = (3 * patch * patch * (2 if kind.startswith("qwen") else 1) + positions) * hidden
    out = size(text, "hidden_size", "n_embd")
    parameters = layers * block + fixed + _projector(vision, kind, hidden, out)
    return Tower(parameters, layers * 4 * hidden * hidden, heads, hidden, width, layers, patches, tokens)


def _projector(vision: Config, kind: str, hidden: int, out: int) -> int:
    if kind.startswith("qwen"):
        merged = hidden * size(vision, "spatial_merge_size", default=2) ** 2
        return (merged * merged + merged * out) * (1 + len(_deepstack(vision)))
    if kind in ("mistral3", "pixtral"):
        return 4 * hidden * hidden + hidden * out + out * out
    if kind in ("internvl_chat", "internvl"):
        return 4 * hidden * out + out * out
    if kind in ("llava", "llava_next", "phi3_v"):
        return hidden * (4 if kind == "phi3_v" else 1) * out + out * out
    if kind == "mllama":
        return size(vision, "vision_output_dim", default=7680) * out
    if kind == "llama4":
        return 4096 * out + 2 * hidden * 4 * 4096
    return hidden * out


def _deepstack(vision: Config) -> list[object]:
    found = vision.get("deepstack_visual_indexes")
    return found if isinstance(found, list) else []


def _largest_item(vision: Config, kind: str, patch: int) -> tuple[int, int]:
    """Patches of the largest image the profile run encodes, and the tokens that it becomes."""
    if kind.startswith("qwen"):
        patches = QWEN_PIXELS // (patch * patch)
        return patches, max(patches // size(vision, "spatial_merge_size", default=2) ** 2, 1)
    if kind.startswith("gemma4"):
        tokens = size(vision, "default_output_length", "image_seq_length", default=280)
        return tokens * size(vision, "pooling_kernel_size", default=3) ** 2, tokens
    side = size(vision, "image_size", default=336) // patch
    patches = max(side * side, 1)
    if kind == "gemma3":
        return patches, 256
    tiles = TILES.get(kind, 1)
    if kind == "mllama":  # images are read by cross-attention and take one token
        return patches * tiles, 1
    merge = 4 if kind in ("mistral3", "internvl_chat", "internvl", "llama4", "phi3_v", "kimi_vl") else 1
    return patches * tiles, max(patches * tiles // merge, 1)


def _audio_tower(audio: Config, text: Config) -> Tower:
    """A conformer layer has two feed-forward blocks of 4 × hidden, attention and a convolution: about 27 × hidden²."""
    hidden = size(audio, "hidden_size", "d_model", "encoder_hidden_size", default=1024)
    layers = size(audio, "num_hidden_layers", "encoder_layers", default=12)
    parameters = layers * 27 * hidden * hidden + hidden * size(text, "hidden_size")
    heads = size(audio, "num_attention_heads", "encoder_attention_heads", default=16)
    return Tower(parameters, layers * 4 * hidden * hidden, heads, hidden, 4 * hidden, layers, 1500, 750)
