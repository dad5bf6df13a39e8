"""What a tensor's name says: which layer and module it belongs to, and how tensor parallel shares it out. Pure.

Names are those of Hugging Face checkpoints; the splits are those of the vLLM layers that load them (matrices.py).
"""

import re

from serving.fit.matrices import Matrix, lora_sizes
from serving.fit.shapes import Attention, ModelShape

FLOATS = ("F64", "F32", "F16", "BF16")  # dtypes that vLLM casts to the one it serves
TOWER = re.compile(
    r"(^|\.)(visual|vision|vit|audio|img|multi_modal_projector|mm_projector|mlp1|patch_merger|embed_vision)"
)
LAYER = re.compile(
    r"(?:^|\.)(?:layers|h|blocks)\.(?P<index>\d{1,6})\.(?P<module>.+?)"
    r"(?:\.(?:weight|bias|qweight|qzeros|scales|g_idx|weight_\w+|weight\.\w+|input_scale|input_global_scale|\w+_scale))?$"
)
EMBEDDING = re.compile(
    r"(^|\.)(embed_tokens|wte|word_embeddings|embeddings|tok_embeddings|embed_in)\.(weight|qweight)$"
)
HEAD = re.compile(r"(^|\.)(lm_head|embed_out|output)\.(weight|qweight)$")
# vLLM computes these itself, or loads them only for speculative decoding (mtp).
NOT_LOADED = re.compile(r"(\.(inv_freq|position_ids|masked_bias|rotary_emb\.\w+)$)|(^|\.)mtp\.")
ROWS = re.compile(
    r"\.(q_proj|gate_proj|up_proj|qkv_proj|gate_up_proj|q_b_proj|kv_b_proj|in_proj\w*|conv1d|query_key_value|"
    r"dense_h_to_4h|fc1|c_attn|w1|wqkv|A_log|dt_bias|D)(\.|$)"
)
COLUMNS = re.compile(r"\.(o_proj|down_proj|out_proj|dense|dense_4h_to_h|fc2|c_proj|wo)(\.|$)")
HEADS = re.compile(r"\.(k_proj|v_proj)(\.|$)")
EXPERTS = re.compile(r"\.experts\.")


def area_of(name: str) -> bool:
    """Whether the tensor is inside the language model's layers."""
    return LAYER.search(name) is not None and TOWER.search(name) is None


def split_of(name: str, shape: tuple[int, ...], model: ModelShape) -> tuple[str, int]:
    """The split, and the number of heads to share out where that is "heads"."""
    if TOWER.search(name):
        return ("rows", 0) if len(shape) > 1 else ("none", 0)
    if EMBEDDING.search(name) or HEAD.search(name):
        return "vocab", 0
    if EXPERTS.search(name):
        return "all", 0
    if HEADS.search(name):
        return "heads", _kv_heads(model)
    if ROWS.search(name):
        return "rows", 0
    return ("columns", 0) if COLUMNS.search(name) and len(shape) > 1 else ("none", 0)


def matrix_of(name: str, model: ModelShape) -> Matrix | None:
    """The matrix that this weight is, by the architecture; None for vectors and for modules without a fixed shape."""
    match = LAYER.search(name)
    if match is None or TOWER.search(name) or not name.endswith(".weight"):
        return None
    index = int(match["index"])
    if index >= model.num_hidden_layers:
        return None
    found = lora_sizes(model, model.layers[index]).get(match["module"])
    return None if found is None or found.copies > 1 else found


def _kv_heads(model: ModelShape) -> int:
    found = [mixer.kv_heads for mixer in model.attentions if isinstance(mixer, Attention)]
    return max(found, default=1)
