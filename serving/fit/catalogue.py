"""The GPUs in gpus.yaml as values. It knows nothing of models.

A card outside the catalogue is described by custom_gpu: its total as the driver reports it, and what it can compute.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

CATALOGUE = Path(__file__).with_name("gpus.yaml")
MIB = 1024**2
GIB = 1024**3
EVICTION_FREE_PERCENT = 10  # kubelet's default nodefs.available threshold
BF16_CAPABILITY = (8, 0)
FP8_CAPABILITY = (8, 9)  # fp8 units; below, fp8 weights are served by Marlin and only stored in 8 bits
MARLIN_CAPABILITY = (8, 0)  # fast kernels for AWQ and GPTQ; below, slower ones with 16-bit copies
NVLINK_GIB = ((38, 41), (77, 82), (138, 142), (170, 290))  # totals of A100, H100, H200, B200 and B300
LEAST_GIB, MOST_GIB = 1.0, 4096.0


class UnknownGpu(Exception):
    """The name is not in the catalogue, or the memory given is no card's."""


class CatalogueInvalid(Exception):
    """gpus.yaml cannot be read."""


@dataclass(frozen=True)
class Machine:
    name: str
    vcpus: int
    ram_bytes: int
    allocatable_ram_bytes: int  # what a pod can get
    disk_bytes: int  # of the boot disk, what can be filled before the kubelet evicts pods
    gpus: int = 1


@dataclass(frozen=True)
class Gpu:
    name: str
    memory_bytes: int  # total, as the CUDA driver reports it to the process
    compute_capability: tuple[int, int]
    machines: tuple[Machine, ...] = ()
    nvlink: bool = False
    reported: bool = False  # the total was given, not looked up

    @property
    def bf16(self) -> bool:
        return self.compute_capability >= BF16_CAPABILITY

    @property
    def fp8(self) -> bool:
        return self.compute_capability >= FP8_CAPABILITY

    @property
    def awq_marlin(self) -> bool:
        return self.compute_capability >= MARLIN_CAPABILITY

    @property
    def machine(self) -> Machine | None:
        return self.machine_for(1)

    def machines_for(self, gpus: int) -> tuple[Machine, ...]:
        """Those with that many cards, the smallest first; the largest alone where none has."""
        return tuple(machine for machine in self.machines if machine.gpus >= gpus) or self.machines[-1:]

    def machine_for(self, gpus: int) -> Machine | None:
        return next(iter(self.machines_for(gpus)), None)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _MachineRow(_Strict):
    name: str
    gpus: int = Field(1, gt=0)
    vcpus: int = Field(gt=0)
    ram_gib: int = Field(gt=0)
    allocatable_gib: int = Field(gt=0)
    boot_disk_gb: int = Field(gt=0)


class _GpuRow(_Strict):
    memory_mib: int = Field(gt=0)
    compute_capability: list[int] = Field(min_length=2, max_length=2)
    nvlink: bool = False
    machines: list[_MachineRow] = []


class _Table(_Strict):
    gpus: dict[str, _GpuRow] = Field(min_length=1)


def load_gpus(path: Path = CATALOGUE) -> dict[str, Gpu]:
    """Every GPU of the catalogue by name. Raises CatalogueInvalid."""
    return dict(_loaded(path))


@lru_cache(maxsize=4)
def _loaded(path: Path) -> tuple[tuple[str, Gpu], ...]:
    try:
        table = _Table.model_validate(YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, YAMLError, ValidationError) as error:
        raise CatalogueInvalid(
            f"{path.name} is not a GPU catalogue: {error}. Compare it with serving/fit/gpus.yaml."
        ) from error
    return tuple((name, _gpu(name, row)) for name, row in table.gpus.items())


def find_gpu(name: str, path: Path = CATALOGUE, memory_gib: float | None = None) -> Gpu:
    """`memory_gib`: the total that the driver reports, where it differs. Raises UnknownGpu, CatalogueInvalid."""
    gpus = load_gpus(path)
    if name not in gpus:
        raise UnknownGpu(
            f"No GPU {name!r} in the catalogue; known: {', '.join(sorted(gpus))}. "
            "Use one of them, or give --gpu-memory with what the driver reports."
        )
    return gpus[name] if memory_gib is None else replace(gpus[name], memory_bytes=_bytes(memory_gib), reported=True)


def custom_gpu(memory_gib: float, compute_capability: tuple[int, int] = (8, 9), name: str = "custom") -> Gpu:
    """A card outside the catalogue; its host is not judged, and NVLink is guessed from the total. Raises UnknownGpu for an impossible memory."""
    nvlink = any(low <= memory_gib <= high for low, high in NVLINK_GIB)
    return Gpu(name, _bytes(memory_gib), compute_capability, (), nvlink, reported=True)


def _bytes(memory_gib: float) -> int:
    if not LEAST_GIB <= memory_gib <= MOST_GIB:
        raise UnknownGpu(f"GPU memory is {memory_gib} GiB; required: {LEAST_GIB:g} to {MOST_GIB:g}. Fix --gpu-memory.")
    return int(memory_gib * GIB)


def _gpu(name: str, row: _GpuRow) -> Gpu:
    major, minor = row.compute_capability
    return Gpu(name, row.memory_mib * MIB, (major, minor), tuple(map(_machine, row.machines)), row.nvlink)


def _machine(row: _MachineRow) -> Machine:
    disk_bytes = row.boot_disk_gb * 10**9 * (100 - EVICTION_FREE_PERCENT) // 100
    return Machine(row.name, row.vcpus, row.ram_gib * GIB, row.allocatable_gib * GIB, disk_bytes, row.gpus)
