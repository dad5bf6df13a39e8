"""What is wrong with a vLLM container beside its GPU memory: the node, the probes, the shared memory. Pure.

Each rule gives one sentence with what was found, what is required and what to change.
"""

from collections.abc import Iterator

from serving.fit.catalogue import GIB, MIB, Gpu, Machine
from serving.fit.manifests import Container, Pod, node_labels, tolerates_gpus
from serving.fit.report import FitReport
from serving.fit.stamp import GPU_LABELS
from serving.fit.vllm_args import VllmArgs

# Loading: a boot disk or network disk of a small cloud machine gives 150 MB/s (GKE pd-balanced of 100 GB: 140 MB/s and
# 0.28 MB/s a GB; cloud.google.com/compute/docs/disks/performance). Starting: imports, torch.compile and graph capture;
# 60 to 120 s in public logs of 7B to 70B models with a cold compile cache. Both are the slow side on purpose: a probe
# that ends a loading engine never lets it start.
LOAD_BYTES_PER_SECOND = 150_000_000
START_SECONDS = 120

# Label value → name in gpus.yaml, where they differ. cloud.google.com/kubernetes-engine/docs/concepts/gpus,
# the GPU feature discovery's gpu.product, and Karpenter's instance-gpu-name.
GPU_OF_LABEL = {
    "nvidia-tesla-a100": "nvidia-a100-40gb",
    "nvidia-h100-mega-80gb": "nvidia-h100-80gb",
    "nvidia-h200-141gb": "nvidia-h200",
    "nvidia-b200": "nvidia-b200",
    "NVIDIA-L4": "nvidia-l4",
    "Tesla-T4": "nvidia-tesla-t4",
    "NVIDIA-A10G": "nvidia-a10g",
    "NVIDIA-L40S": "nvidia-l40s",
    "NVIDIA-A100-SXM4-40GB": "nvidia-a100-40gb",
    "NVIDIA-A100-SXM4-80GB": "nvidia-a100-80gb",
    "NVIDIA-A100-80GB-PCIe": "nvidia-a100-80gb",
    "NVIDIA-H100-80GB-HBM3": "nvidia-h100-80gb",
    "NVIDIA-H100-PCIe": "nvidia-h100-80gb",
    "NVIDIA-H200": "nvidia-h200",
    "NVIDIA-B200": "nvidia-b200",
    "l4": "nvidia-l4",
    "t4": "nvidia-tesla-t4",
    "a10g": "nvidia-a10g",
    "a100": "nvidia-a100-40gb",
    "h100": "nvidia-h100-80gb",
    "h200": "nvidia-h200",
    "l40s": "nvidia-l40s",
}


def selected_gpus(pod: Pod) -> tuple[str, ...]:
    """Names in gpus.yaml (or the label's own word) that the pod may land on; empty when it selects none."""
    labels = node_labels(pod)
    for label in GPU_LABELS:
        if label in labels and label != "node.kubernetes.io/instance-type":
            return tuple(dict.fromkeys(GPU_OF_LABEL.get(value, value) for value in labels[label]))
    return ()


def judge_container(
    pod: Pod, container: Container, args: VllmArgs, report: FitReport, gpu: Gpu, weights_disk_bytes: int
) -> tuple[str, ...]:
    """Findings on one container that has a report. `weights_disk_bytes`: 0 when it is not known."""
    return (
        *_fit(report),
        *_length(args, report),
        *_parallel(args, container),
        *_landing(pod, args, report, gpu),
        *_node(container, gpu.machine_for(container.gpus)),
        *_memory(container, report),
        *_probe(container, weights_disk_bytes),
    )


def _fit(report: FitReport) -> Iterator[str]:
    if report.verdict == "does_not_fit":
        change = f" Use {report.changes[0].flag}." if report.changes else " Use a larger GPU."
        yield f"It does not fit: {' '.join(report.reasons)}{change}"


def _length(args: VllmArgs, report: FitReport) -> Iterator[str]:
    if args.auto_length:
        yield (
            "--max-model-len is automatic, so the engine shortens the context without a word when memory is short; "
            f"required: a number. Use --max-model-len={max(report.max_model_len_fits, 1)}."
        )


def _parallel(args: VllmArgs, container: Container) -> Iterator[str]:
    flags = args.flags
    wanted = flags.tensor_parallel_size * flags.pipeline_parallel_size * flags.data_parallel_size
    if container.gpus and wanted > container.gpus:
        yield (
            f"The arguments spread the model over {wanted} GPUs and the container gets {container.gpus}; required: as "
            f"many. Set the limit nvidia.com/gpu to {wanted}."
        )


def _landing(pod: Pod, args: VllmArgs, report: FitReport, gpu: Gpu) -> Iterator[str]:
    """A toleration opens every GPU pool; only a selector chooses one."""
    if selected_gpus(pod) or not tolerates_gpus(pod) or args.flags.dtype in ("half", "float16") or not gpu.bf16:
        return
    if "--dtype=half" not in report.flags:
        yield (
            f"The pod tolerates GPU nodes and selects none, so it may land on a card without bfloat16 (a T4) although "
            f"it was checked for {gpu.name}; required: a selector. Add the nodeSelector {GPU_LABELS[0]}."
        )


def _node(container: Container, machine: Machine | None) -> Iterator[str]:
    if machine is None:
        return
    allocatable = machine.allocatable_ram_bytes
    for what, size in (("requests", container.memory_request), ("limits", container.memory_limit)):
        if size is not None and size > allocatable:
            effect = "it stays Pending" if what == "requests" else "the node runs out of memory before the limit counts"
            yield (
                f"resources.{what}.memory is {size / GIB:.1f} GiB and {machine.name} gives a pod "
                f"{allocatable / GIB:.1f} GiB, so {effect}; required: at most that. Lower it or take a larger machine."
            )
            return
    if container.cpu_request is not None and container.cpu_request > machine.vcpus:
        yield (
            f"resources.requests.cpu is {container.cpu_request:g} and {machine.name} has {machine.vcpus}, so it stays "
            "Pending; required: less. Lower the request."
        )


def _memory(container: Container, report: FitReport) -> Iterator[str]:
    limit = container.memory_limit
    if limit is None:
        return
    if container.shm_bytes is not None and container.shm_bytes > limit:
        yield (
            f"The memory-backed /dev/shm may grow to {container.shm_bytes / GIB:.1f} GiB and counts against the memory limit of "
            f"{limit / GIB:.1f} GiB; required: less than the limit. Lower the emptyDir's sizeLimit."
        )
    if report.host_ram_needed_bytes > limit:
        yield (
            f"Loading needs {report.host_ram_needed_bytes / GIB:.1f} GiB of RAM and the memory limit is "
            f"{limit / GIB:.1f} GiB, so the kernel ends it; required: at least that. Raise resources.limits.memory to "
            f"{-(-report.host_ram_needed_bytes // MIB)}Mi."
        )


def _probe(container: Container, weights_disk_bytes: int) -> Iterator[str]:
    needed = START_SECONDS + weights_disk_bytes // LOAD_BYTES_PER_SECOND
    if container.startup_seconds is not None and container.startup_seconds < needed:
        yield (
            f"The probes end the container {container.startup_seconds} s after its start and a cold start takes about "
            f"{needed} s; required: more. Raise startupProbe.failureThreshold to {-(-needed // 10)} with periodSeconds 10."
        )
