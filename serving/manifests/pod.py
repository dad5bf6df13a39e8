"""The engine's pod: vLLM on a modelcar, ready when it is warm, gone when nothing runs any more. Pure.

It keeps the restricted Pod Security Standard. HOME and every cache are one emptyDir, since the root is read-only.
"""

from __future__ import annotations

import math
from typing import Any

from serving.fit.stamp import ANNOTATION, stamp
from serving.manifests.model import Desired, Member
from serving.manifests.modelcars import loaded, signatures, sources
from serving.manifests.naming import PORTS, SIGNATURE

CONTAINERS = {"inferenceservice": "kserve-container", "deployment": "vllm", "llminferenceservice": "main"}
USER = 65532
CACHE = "/cache"
TMP = "/tmp"  # noqa: S108 - an emptyDir of the pod
PROBE_SECONDS = 10
# The time in which gateway and endpoint picker learn that a pod ends; then the hook waits until the engine is idle.
PRE_STOP_SLEEP = 10
# What the engine has beside the longest request: the sleep, and its own end.
GRACE_MARGIN = PRE_STOP_SLEEP + 30
DRAIN = (
    f"sleep {PRE_STOP_SLEEP}; until curl -sf --max-time 5 http://127.0.0.1:PORT/metrics"
    " | awk '/^vllm:num_requests_running|^vllm:num_requests_waiting/ {n += $NF} END {exit n > 0}'; do sleep 1; done"
)
RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def grace_seconds(desired: Desired) -> int:
    """A request may run as long as its route lets it; the engine ends after the last of them."""
    return desired.request_seconds + GRACE_MARGIN


def argv(desired: Desired, member: Member) -> tuple[str, ...]:
    """vLLM's flags. Clients ask for the model's name, so that is what an engine of one version is called."""
    found = loaded(desired, member)
    served = f"{desired.model}-base" if found.adapters else desired.model
    modules = tuple(f"{name}={folder}" for name, folder in found.adapters)
    return (
        f"--model={found.base}",
        f"--served-model-name={served}",
        f"--port={PORTS[desired.form]}",
        *member.flags,
        *(("--lora-modules", *modules) if modules else ()),
    )


def warm_model(desired: Desired, member: Member) -> str:
    """What the readiness probe asks for."""
    adapters = loaded(desired, member).adapters
    return adapters[0][0] if adapters else desired.model


def pod_annotations(desired: Desired, member: Member) -> dict[str, str]:
    """What deploy/policies ask for: the modelcars' signatures, and the fit stamp of these arguments. Raises NotStampable."""
    lines = [f"{image} {payload}" for image, payload in signatures(desired, member)]
    return {**({SIGNATURE: "\n".join(lines)} if lines else {}), **_stamp(desired, member)}


def _stamp(desired: Desired, member: Member) -> dict[str, str]:
    if member.fit is None:
        return {}
    text = stamp(
        {CONTAINERS[desired.form]: argv(desired, member)},
        gpu=member.fit.gpu,
        model=member.fit.model_digest,
        selector=node_selector(desired),
        sources=sources(desired, member),
        verdict=member.fit.verdict,
    )
    return {ANNOTATION: text}


def node_selector(desired: Desired) -> dict[str, str]:
    return {desired.platform.gpu_label: desired.gpu}


def pod_spec(desired: Desired, member: Member) -> dict[str, Any]:
    """Everything but what the form adds to mount the modelcar."""
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "nodeSelector": node_selector(desired),
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationGracePeriodSeconds": grace_seconds(desired),
        "containers": [_container(desired, member)],
        "volumes": _volumes(desired, member),
    }


def _container(desired: Desired, member: Member) -> dict[str, Any]:
    return {
        "name": CONTAINERS[desired.form],
        "image": desired.platform.engine_image,
        "imagePullPolicy": "IfNotPresent",
        "args": list(argv(desired, member)),
        "env": _environment(desired, member),
        "ports": [{"name": "http", "containerPort": PORTS[desired.form], "protocol": "TCP"}],
        "resources": _resources(member),
        **_probes(desired, member),
        "lifecycle": {
            # The emptyDir outlives the container, so a restarted one would be taken for warm.
            "postStart": {"exec": {"command": ["rm", "-rf", f"{TMP}/warmup"]}},
            "preStop": {"exec": {"command": ["sh", "-c", DRAIN.replace("PORT", str(PORTS[desired.form]))]}},
        },
        "securityContext": RESTRICTED,
        "volumeMounts": [
            {"name": "dshm", "mountPath": "/dev/shm"},  # noqa: S108 - an emptyDir of the pod
            {"name": "cache", "mountPath": CACHE},
            {"name": "tmp", "mountPath": TMP},
            {"name": "warmup", "mountPath": "/warmup", "readOnly": True},
        ],
    }


def _environment(desired: Desired, member: Member) -> list[dict[str, Any]]:
    warm = desired.warmup
    values = {
        "HOME": CACHE,
        "XDG_CACHE_HOME": f"{CACHE}/.cache",
        "VLLM_CACHE_ROOT": f"{CACHE}/vllm",
        "TRITON_CACHE_DIR": f"{CACHE}/triton",
        "HF_HOME": f"{CACHE}/huggingface",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "NCCL_CUMEM_ENABLE": "0",
        "USER": "vllm",
        "WARM_URL": f"http://127.0.0.1:{PORTS[desired.form]}",
        "WARM_MODEL": warm_model(desired, member),
        "WARM_REQUESTS": str(warm.requests),
        "WARM_FIRST_TOKEN_SECONDS": f"{warm.first_token_seconds:g}",
        "WARM_PROMPTS": "/warmup",
    }
    if desired.form == "inferenceservice":
        values = {"STORAGE_URI": f"oci://{loaded(desired, member).images[0]}", **values}
    key = {"secretKeyRef": {"name": desired.platform.api_key_secret, "key": desired.platform.api_key}}
    secret = [{"name": name, "valueFrom": key} for name in ("VLLM_API_KEY", "WARM_API_KEY")]
    return [*({"name": name, "value": value} for name, value in values.items()), *secret]


def _resources(member: Member) -> dict[str, Any]:
    wanted = member.resources
    gpus = str(wanted.gpus)
    return {
        "requests": {"cpu": wanted.cpu, "memory": wanted.memory, "nvidia.com/gpu": gpus},
        "limits": {"cpu": wanted.cpu_limit, "memory": wanted.memory_limit, "nvidia.com/gpu": gpus},
    }


def _probes(desired: Desired, member: Member) -> dict[str, Any]:
    """Started when it answers, ready when it is warm, alive while it answers: a cold engine is alive."""
    health = {"httpGet": {"path": "/health", "port": PORTS[desired.form]}}
    tries = math.ceil(member.startup_seconds / PROBE_SECONDS)
    warm = {"exec": {"command": ["sh", "/warmup/ready.sh"]}}
    return {
        "startupProbe": {**health, "periodSeconds": PROBE_SECONDS, "timeoutSeconds": 5, "failureThreshold": tries},
        "readinessProbe": {**warm, "periodSeconds": 2, "timeoutSeconds": 60, "failureThreshold": 1},
        "livenessProbe": {**health, "periodSeconds": 20, "timeoutSeconds": 5, "failureThreshold": 3},
    }


def _volumes(desired: Desired, member: Member) -> list[dict[str, Any]]:
    return [
        {"name": "dshm", "emptyDir": {"medium": "Memory", "sizeLimit": member.resources.shm}},
        {"name": "cache", "emptyDir": {"sizeLimit": "10Gi"}},
        {"name": "tmp", "emptyDir": {"sizeLimit": "2Gi"}},
        {"name": "warmup", "configMap": {"name": f"{desired.model}-warmup", "defaultMode": 0o444}},
    ]
