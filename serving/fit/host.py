"""What the machine around the GPU needs while the engine loads: RAM and boot disk. Pure."""

from serving.fit.adapter import AdapterShape
from serving.fit.catalogue import GIB, Machine
from serving.fit.report import Verdict, worst
from serving.fit.weights import Weights

# API server and engine core: 2.9 GiB resident measured for the CPU build with a small model, and about 1 GiB for CUDA.
PROCESS_BYTES = 4 * GIB
# Each further GPU has a worker process of its own with torch and a CUDA context; not measured on its own.
WORKER_BYTES = 2 * GIB
# vllm/vllm-openai: 28.6 GB unpacked (vllm-project/vllm pull 22377) and 12.6 GB of layers (issue 27154); a node keeps
# both.
IMAGE_BYTES = 42 * 10**9
# Node OS, the kubelet's and the driver's images, logs: an allowance, not a measurement.
SYSTEM_BYTES = 10 * 10**9


def ram_needed(weights: Weights, adapters: tuple[AdapterShape, ...], gpus: int = 1) -> int:
    """The least: the processes, the largest weight file (mapped while it is copied), and a copy of each adapter."""
    return (
        PROCESS_BYTES
        + (gpus - 1) * WORKER_BYTES
        + weights.largest_file_bytes
        + sum(adapter.nbytes for adapter in adapters)
    )


def disk_needed(weights: Weights, adapters: tuple[AdapterShape, ...]) -> int:
    """Engine image, and the model and adapters twice: as image layers and unpacked."""
    return SYSTEM_BYTES + IMAGE_BYTES + 2 * (weights.disk_bytes + sum(adapter.nbytes for adapter in adapters))


def judge_host(
    weights: Weights, adapters: tuple[AdapterShape, ...], machines: tuple[Machine, ...], gpus: int = 1
) -> tuple[Verdict, tuple[str, ...]]:
    """`machines`: the shapes with enough cards, the smallest first; that one is judged.

    tight when it is short of RAM for the largest weight file, and a larger shape has enough; does_not_fit when none has.
    tight when RAM holds the largest file but not all of them: weight files are mapped, and the kernel can drop pages it
    has read, but whether a node survives that depends on its memory limit and its disk. tight when images and model are
    more than the default boot disk, since its size is chosen with the node.
    """
    verdict: Verdict = "fits"
    reasons: list[str] = []
    machine = machines[0]
    ram = ram_needed(weights, adapters, gpus)
    everything = ram - weights.largest_file_bytes + weights.disk_bytes
    if everything > machine.allocatable_ram_bytes:
        larger = next((other for other in machines if other.allocatable_ram_bytes >= ram), None)
        verdict = "tight" if larger else "does_not_fit"
        advice = f" Take {larger.name}." if larger and larger is not machine else ""
        reasons.append(
            f"Loading needs {_gib(ram)} of host RAM at least and {_gib(everything)} to keep all weight files cached; "
            f"a pod on {machine.name} can get {_gib(machine.allocatable_ram_bytes)}.{advice}"
        )
    disk = disk_needed(weights, adapters)
    if disk > machine.disk_bytes:
        verdict = worst(verdict, "tight")
        reasons.append(
            f"Images and model need {disk / 1e9:.1f} GB of boot disk; {machine.name} has {machine.disk_bytes / 1e9:.1f} GB "
            "to fill by default. Give the node a larger boot disk."
        )
    return verdict, tuple(reasons)


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"
