"""Read a base model and an adapter from folders and say whether they fit a named GPU. READ FIRST.

    report = preflight(Path("SmolLM2-135M-Instruct"), Path("adapter"), gpu="nvidia-l4")

Reads config.json, adapter_config.json and safetensors headers only. It starts nothing and needs no GPU.
"""

from pathlib import Path

from serving.fit.adapter import check_base, read_adapter
from serving.fit.catalogue import find_gpu
from serving.fit.config import ConfigInvalid, ModelShape, parse_config
from serving.fit.engines import PINNED_ENGINE
from serving.fit.estimate import estimate
from serving.fit.flags import EngineFlags
from serving.fit.parts import SERVED_DTYPE_BYTES
from serving.fit.report import FitReport
from serving.fit.strict_json import BadJson, read_object
from serving.fit.weights import measure

HUB_PREFIX = "models--"


def preflight(
    base: Path,
    adapter: Path | None,
    *,
    gpu: str,
    flags: EngineFlags | None = None,
    base_model: str | None = None,
    engine_version: str = PINNED_ENGINE,
) -> FitReport:
    """`base_model` is the id that adapters name, where the folder's own name is not it (a mount, a digest).

    Raises UnknownGpu, CatalogueInvalid, ConfigInvalid, UnsupportedModel, HeaderInvalid, AdapterRefused, FlagsRefused,
    UnknownEngine.
    """
    card = find_gpu(gpu)
    model = read_config(base)
    weights = measure(base, model, SERVED_DTYPE_BYTES)
    adapters = () if adapter is None else (read_adapter(adapter),)
    for shape in adapters:
        check_base(shape, model, (base_model,) if base_model else base_names(base))
    return estimate(model, weights, adapters, card, flags or EngineFlags(), engine_version)


def read_config(base: Path) -> ModelShape:
    """Raises ConfigInvalid, UnsupportedModel."""
    try:
        config = read_object(base / "config.json")
    except BadJson as error:
        raise ConfigInvalid(
            f"config.json of {base.name}: {error}; required: the model's JSON file. Fetch the model again."
        ) from error
    return parse_config(config)


def base_names(base: Path) -> tuple[str, ...]:
    """What an adapter may call this base: the folder's name, also behind a link, or the id of a hub cache folder."""
    real = base.resolve()
    cached = [part.removeprefix(HUB_PREFIX).replace("--", "/") for part in real.parts if part.startswith(HUB_PREFIX)]
    return (base.absolute().name, real.name, *cached)
