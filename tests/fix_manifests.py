"""Kubernetes objects that serve vLLM, as the host platform writes them, for the tests of manifests and admission."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

IMAGE = "vllm/vllm-openai:v0.23.0@sha256:6d8429e38e3747723ca07ee1b17972e09bb9c51c4032b266f24fb1cc3b22ed8f"
L4 = {"cloud.google.com/gke-accelerator": "nvidia-l4"}
TOLERATION = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
Object = dict[str, Any]


def container(*args: str, memory: str = "12Gi", **fields: Any) -> Object:
    base: Object = {
        "name": "vllm",
        "image": IMAGE,
        "args": list(args or ("--model=org/small", "--max-model-len=4096", "--gpu-memory-utilization=0.6")),
        "resources": {
            "requests": {"cpu": "1", "memory": "4Gi"},
            "limits": {"cpu": "4", "memory": memory, "nvidia.com/gpu": "1"},
        },
        "startupProbe": {"httpGet": {"path": "/health", "port": 8000}, "periodSeconds": 10, "failureThreshold": 60},
    }
    return base | fields


def pod_spec(*containers: Object, **fields: Any) -> Object:
    listed = list(containers or (container(),))
    return {"containers": listed, "nodeSelector": dict(L4), "tolerations": [TOLERATION]} | fields


def deployment(spec: Object, kind: str = "Deployment") -> Object:
    template = {"metadata": {"labels": {"app": "x"}}, "spec": spec}
    metadata = {"name": "raw-vllm", "namespace": "serving"}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": metadata, "spec": {"replicas": 1, "template": template}}


def inference_service(predictor: Object) -> Object:
    metadata = {"name": "qwen-oci", "namespace": "kserve"}
    kind = {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService"}
    return kind | {"metadata": metadata, "spec": {"predictor": predictor}}


def llm_inference_service(**spec: Any) -> Object:
    kind = {"apiVersion": "serving.kserve.io/v1alpha2", "kind": "LLMInferenceService"}
    main = container("--max-model-len=4096", name="main")
    base = {"model": {"uri": "hf://org/small", "name": "small"}, "template": pod_spec(main)}
    return kind | {"metadata": {"name": "llm"}, "spec": base | spec}


def write(folder: Path, *objects: Object, name: str = "all.yaml") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("w") as file:
        YAML(typ="safe").dump_all(objects, file)
    return folder
