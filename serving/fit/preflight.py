"""Read a base model and adapters from folders and say whether they fit a named GPU. READ FIRST.

    report = preflight(Path("SmolLM2-135M-Instruct"), Path("adapter"), gpu="nvidia-l4")

Reads config.json, adapter_config.json and safetensors headers only. It starts nothing and needs no GPU.
"""

from collections.abc import Sequence
from pathlib import Path

from serving.fit.adapter import check_base, read_adapter
from serving.fit.catalogue import Gpu, find_gpu
from serving.fit.engines import PINNED_ENGINE
from serving.fit.estimate import estimate
from serving.fit.files import read_config, read_tensors, weight_files
from serving.fit.flags import EngineFlags
from serving.fit.report import FitReport
from serving.fit.weights import weights_from_headers

HUB_PREFIX = "models--"


def preflight(
    base: Path,
    adapter: Path | Sequence[Path] | None = None,
    *,
    gpu: str | Gpu,
    flags: EngineFlags | None = None,
    base_model: str | None = None,
    engine_version: str = PINNED_ENGINE,
    gpu_memory_gib: float | None = None,
) -> FitReport:
    """`base_model` is the id that adapters name, where the folder's own name is not it (a mount, a digest).

    `gpu_memory_gib`: the total that the driver reports, where it is not the catalogue's. Raises UnknownGpu,
    CatalogueInvalid, ConfigInvalid, UnsupportedModel, HeaderInvalid, AdapterRefused, FlagsRefused, UnknownEngine.
    """
    card = gpu if isinstance(gpu, Gpu) else find_gpu(gpu, memory_gib=gpu_memory_gib)
    asked = flags or EngineFlags()
    model = read_config(base)
    sizes = [path.stat().st_size for path in weight_files(base)]
    weights = weights_from_headers(read_tensors(base), model, sizes, asked.quantization)
    folders = () if adapter is None else (adapter,) if isinstance(adapter, Path) else tuple(adapter)
    adapters = tuple(read_adapter(folder) for folder in folders)
    for shape in adapters:
        check_base(shape, model, (base_model,) if base_model else base_names(base))
    return estimate(model, weights, adapters, card, asked, engine_version)


def base_names(base: Path) -> tuple[str, ...]:
    """What an adapter may call this base: the folder's name, also behind a link, or the id of a hub cache folder."""
    real = base.resolve()
    cached = [part.removeprefix(HUB_PREFIX).replace("--", "/") for part in real.parts if part.startswith(HUB_PREFIX)]
    return (base.absolute().name, real.name, *cached)
