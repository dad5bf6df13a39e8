"""vLLM containers in Kubernetes objects: what each runs, gets and asks of its node. Pure; reads no file.

Pods and what makes them (Deployment, StatefulSet, DaemonSet, ReplicaSet, Job), KServe's InferenceService and its
LLMInferenceService. KServe completes the last two on the cluster from runtimes and presets, which are not seen here.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from serving.fit.quantity import parse_quantity

TEMPLATES = ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job")
GPU_PREFIX = "nvidia.com/"
MODEL_CONTAINER = "kserve-container"  # what KServe names the container of predictor.model
LLM_CONTAINER = "main"  # of an LLMInferenceService's template
STORAGE_URI = "STORAGE_URI"
KSERVE_MOUNT = "/mnt/models"
VLLM_FORMATS = ("vllm", "huggingface")

Object = Mapping[str, Any]


class ManifestInvalid(Exception):
    """A file or an object in it is no Kubernetes manifest."""


@dataclass(frozen=True)
class Pod:
    """A pod spec, and where its annotations belong in the object."""

    spec: Object
    annotations: tuple[str, ...]  # path of keys
    source: str | None = None  # the model's URI where a field of the object has it
    tensor_parallel: int | None = None  # where a field of the object has it


@dataclass(frozen=True)
class Container:
    """One container with a GPU."""

    name: str
    image: str
    argv: tuple[str, ...]  # command and args
    env: Mapping[str, str]
    gpus: int
    memory_limit: int | None  # bytes
    memory_request: int | None
    cpu_request: float | None
    shm_bytes: int | None  # sizeLimit of a memory-backed emptyDir at /dev/shm; None: none, or without a limit
    startup_seconds: int | None  # from the start until the kubelet ends it for not answering; None: never
    is_vllm: bool


def pods(document: Object) -> tuple[Pod, ...]:
    """The pods that an object describes; none for other kinds. Raises ManifestInvalid."""
    kind, spec = document.get("kind"), _mapping(document.get("spec"))
    if kind == "Pod":
        return (Pod(spec, ("metadata", "annotations")),)
    if kind in TEMPLATES:
        return (Pod(_mapping(_mapping(spec.get("template")).get("spec")), _inside("template", "metadata")),)
    if kind == "InferenceService":
        return (_predictor(_mapping(spec.get("predictor"))),)
    return tuple(_llm_pods(spec)) if kind == "LLMInferenceService" else ()


def gpu_containers(pod: Pod) -> tuple[Container, ...]:
    """Containers, and init containers, that get a GPU. Raises ManifestInvalid, QuantityInvalid."""
    listed = [*_list(pod.spec, "containers"), *_list(pod.spec, "initContainers")]
    return tuple(_container(pod, entry) for entry in listed if _gpus(entry) or _claims(entry))


def sources(pod: Pod) -> tuple[str, ...]:
    """Where the pod takes its model from: STORAGE_URI of its GPU containers, image volumes, the object's own field."""
    found = [container.env[STORAGE_URI] for container in gpu_containers(pod) if STORAGE_URI in container.env]
    for volume in _list(pod.spec, "volumes"):
        reference = _mapping(volume.get("image")).get("reference")
        found += [reference] if isinstance(reference, str) else []
    return tuple([pod.source, *found] if pod.source else found)


def model_source(pod: Pod, container: Container, named: str | None) -> str | None:
    """The model to look for: what the arguments name, or, where that is a mount, what is mounted there."""
    if named and not named.startswith("/"):
        return named
    uris = sources(pod)
    return uris[0] if uris else named


def tolerates_gpus(pod: Pod) -> bool:
    """A toleration that lets it onto nodes tainted nvidia.com/gpu, or onto any."""
    keys = (entry.get("key") for entry in _list(pod.spec, "tolerations"))
    return any(key is None or str(key).startswith(GPU_PREFIX) for key in keys)


def node_labels(pod: Pod) -> dict[str, tuple[str, ...]]:
    """Label → values that a node may have: the nodeSelector, and required node affinity with one term."""
    found: dict[str, tuple[str, ...]] = {
        key: (str(value),) for key, value in _mapping(pod.spec.get("nodeSelector")).items()
    }
    affinity = _mapping(_mapping(pod.spec.get("affinity")).get("nodeAffinity"))
    terms = _list(_mapping(affinity.get("requiredDuringSchedulingIgnoredDuringExecution")), "nodeSelectorTerms")
    if len(terms) == 1:
        for expression in _list(terms[0], "matchExpressions"):
            if expression.get("operator") == "In" and isinstance(expression.get("values"), list):
                found.setdefault(str(expression.get("key")), tuple(map(str, expression["values"])))
    return found


def _predictor(predictor: Object) -> Pod:
    """KServe takes either containers or a model, which becomes the container kserve-container."""
    model = _mapping(predictor.get("model"))
    if not model:
        return Pod(predictor, _inside("predictor"))
    kind = str(_mapping(model.get("modelFormat")).get("name", "")).lower()
    image = model.get("image") or ("vllm" if kind in VLLM_FORMATS else kind)
    container = {**model, "name": MODEL_CONTAINER, "image": image}
    uri = model.get("storageUri")
    return Pod({**predictor, "containers": [container]}, _inside("predictor"), uri if isinstance(uri, str) else None)


def _llm_pods(spec: Object) -> Iterator[Pod]:
    uri = _mapping(spec.get("model")).get("uri")
    for part, path in ((spec, ()), (_mapping(spec.get("prefill")), ("prefill",))):
        if part.get("template"):
            tensor = _mapping(part.get("parallelism")).get("tensor")
            yield Pod(_mapping(part["template"]), _inside(*path), uri if isinstance(uri, str) else None, tensor)


def _container(pod: Pod, entry: Object) -> Container:
    resources = _mapping(entry.get("resources"))
    limits, requests = _mapping(resources.get("limits")), _mapping(resources.get("requests"))
    argv = tuple(str(word) for key in ("command", "args") for word in (entry.get(key) or ()))
    name, image = str(entry.get("name", "")), str(entry.get("image", ""))
    is_vllm = "vllm" in image or any("vllm" in word for word in argv) or (bool(pod.source) and name == LLM_CONTAINER)
    memory_limit = _bytes(limits.get("memory"))
    cpu = requests.get("cpu", limits.get("cpu"))
    return Container(
        name=name,
        image=image,
        argv=argv,
        env=_environment(entry),
        gpus=_gpus(entry),
        memory_limit=memory_limit,
        memory_request=_bytes(requests.get("memory")) or memory_limit,
        cpu_request=None if cpu is None else float(parse_quantity(cpu)),
        shm_bytes=_shm(pod, entry),
        startup_seconds=_startup(entry),
        is_vllm=is_vllm,
    )


def _gpus(entry: Object) -> int:
    limits = _mapping(_mapping(entry.get("resources")).get("limits"))
    return sum(int(parse_quantity(size)) for name, size in limits.items() if str(name).startswith(GPU_PREFIX))


def _claims(entry: Object) -> bool:
    return bool(_mapping(entry.get("resources")).get("claims"))


def _environment(entry: Object) -> dict[str, str]:
    """Values that stand in the manifest; those from secrets and config maps are left out."""
    return {str(item.get("name")): str(item["value"]) for item in _list(entry, "env") if "value" in item}


def _shm(pod: Pod, entry: Object) -> int | None:
    mounts = {item.get("name") for item in _list(entry, "volumeMounts") if item.get("mountPath") == "/dev/shm"}  # noqa: S108
    for volume in _list(pod.spec, "volumes"):
        backing = _mapping(volume.get("emptyDir"))
        if volume.get("name") in mounts and backing.get("medium") == "Memory":
            return _bytes(backing.get("sizeLimit"))
    return None


def _startup(entry: Object) -> int | None:
    """The liveness probe counts from the start where there is no startup probe (defaults of the Kubernetes API)."""
    probe = _mapping(entry.get("startupProbe")) or _mapping(entry.get("livenessProbe"))
    if not probe:
        return None
    delay, period = _whole(probe, "initialDelaySeconds", 0), _whole(probe, "periodSeconds", 10)
    return delay + period * _whole(probe, "failureThreshold", 3)


def _whole(parent: Object, key: str, default: int) -> int:
    value = parent.get(key, default)
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        raise ManifestInvalid(
            f"{key} is {str(value)[:60]!r}; required: a whole number; render the manifests again"
        ) from None


def _inside(*path: str) -> tuple[str, ...]:
    return ("spec", *path, "annotations")


def _bytes(value: object) -> int | None:
    return None if value is None else int(parse_quantity(value))


def _mapping(value: object) -> Object:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ManifestInvalid(f"{str(value)[:60]!r} stands where a manifest has an object; render the manifests again")
    return value


def _list(parent: Object, key: str) -> Sequence[Object]:
    value = parent.get(key) or ()
    if (
        not isinstance(value, Sequence)
        or isinstance(value, str)
        or not all(isinstance(each, Mapping) for each in value)
    ):
        raise ManifestInvalid(f"{key} is no list of objects; render the manifests again")
    return value
