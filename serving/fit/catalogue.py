"""The GPUs in gpus.yaml as values. It knows nothing of models.

A card outside the catalogue can be described by building a Gpu.
"""

from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

CATALOGUE = Path(__file__).with_name("gpus.yaml")
MIB = 1024**2
GIB = 1024**3
EVICTION_FREE_PERCENT = 10  # kubelet's default nodefs.available threshold


class UnknownGpu(Exception):
    """The name is not in the catalogue."""


class CatalogueInvalid(Exception):
    """gpus.yaml cannot be read."""


@dataclass(frozen=True)
class Machine:
    name: str
    vcpus: int
    ram_bytes: int
    allocatable_ram_bytes: int  # what a pod can get
    disk_bytes: int  # of the boot disk, what can be filled before the kubelet evicts pods


@dataclass(frozen=True)
class Gpu:
    name: str
    memory_bytes: int  # total, as the CUDA driver reports it to the process
    compute_capability: tuple[int, int]
    bf16: bool
    machine: Machine


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _MachineRow(_Strict):
    name: str
    vcpus: int = Field(gt=0)
    ram_gib: int = Field(gt=0)
    allocatable_gib: int = Field(gt=0)
    boot_disk_gb: int = Field(gt=0)


class _GpuRow(_Strict):
    memory_mib: int = Field(gt=0)
    compute_capability: list[int] = Field(min_length=2, max_length=2)
    bf16: bool
    machine: _MachineRow


class _Table(_Strict):
    gpus: dict[str, _GpuRow] = Field(min_length=1)


def load_gpus(path: Path = CATALOGUE) -> dict[str, Gpu]:
    """Every GPU of the catalogue by name. Raises CatalogueInvalid."""
    try:
        table = _Table.model_validate(YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, YAMLError, ValidationError) as error:
        raise CatalogueInvalid(
            f"{path.name} is not a GPU catalogue: {error}. Compare it with serving/fit/gpus.yaml."
        ) from error
    return {name: _gpu(name, row) for name, row in table.gpus.items()}


def find_gpu(name: str, path: Path = CATALOGUE) -> Gpu:
    """Raises UnknownGpu, CatalogueInvalid."""
    gpus = load_gpus(path)
    if name not in gpus:
        raise UnknownGpu(
            f"No GPU {name!r} in the catalogue; known: {', '.join(sorted(gpus))}. "
            "Use one of them or add it to gpus.yaml."
        )
    return gpus[name]


def _gpu(name: str, row: _GpuRow) -> Gpu:
    major, minor = row.compute_capability
    return Gpu(name, row.memory_mib * MIB, (major, minor), row.bf16, _machine(row.machine))


def _machine(row: _MachineRow) -> Machine:
    disk_bytes = row.boot_disk_gb * 10**9 * (100 - EVICTION_FREE_PERCENT) // 100
    return Machine(row.name, row.vcpus, row.ram_gib * GIB, row.allocatable_gib * GIB, disk_bytes)
