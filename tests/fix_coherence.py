"""A coherent chain as manifests, values and chain.yaml, to be broken in one place at a time.

Chosen by hand: the client waits 900 s and tries once; LiteLLM two tries of what the route behind lets it wait, 350 s, 0.5 and
1 s of waits and twice 0.75 s of jitter (703 s); the edge
route 850 s; the engine's longest answer 20 + 2 + 4096/66 = 84.1 s. A pod may drain 60 s longer than its longest request.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from serving.coherence.check import Checked, check

TODAY = date(2026, 11, 28)
Json = dict[str, Any]
Files = dict[str, list[Json]]
IDLE = ["python3", "-c", "wait until vllm:num_requests_running is 0"]


def engine() -> Json:
    labels = {"app": "llm"}
    container = {
        "name": "vllm", "image": "vllm/vllm-openai:v0.23.0",
        "args": ["--model=org/model", "--served-model-name=llm", "--max-model-len=8192", "--max-num-seqs=16"],
        "startupProbe": {"periodSeconds": 10, "failureThreshold": 40},
        "livenessProbe": {"periodSeconds": 20},
        "lifecycle": {"preStop": {"exec": {"command": IDLE}}},
    }  # fmt: skip
    pod = {"terminationGracePeriodSeconds": 410, "containers": [container]}
    template = {"metadata": {"labels": labels}, "spec": pod}
    spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "llm", "namespace": "serving"},
        "spec": spec,
    }


def service() -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "llm", "namespace": "serving"},
        "spec": {"selector": {"app": "llm"}},
    }


def route(name: str, namespace: str, gateway: str, request: str, backend: Json, model: str | None = None) -> Json:
    rule: Json = {"backendRefs": [backend], "timeouts": {"request": request}}
    if model:
        rule["matches"] = [{"headers": [{"name": "X-Gateway-Base-Model-Name", "value": model}]}]
    spec = {"parentRefs": [{"name": gateway, "namespace": "gateways"}], "rules": [rule]}
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }


def gateway(name: str) -> Json:
    spec = {"gatewayClassName": "agentgateway"}
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {"name": name, "namespace": "gateways"},
        "spec": spec,
    }


def values() -> Json:
    params = {"model": "openai/llm", "api_base": "http://inner.gateways.svc.cluster.local/v1"}
    config = {
        "general_settings": {"cancel_on_disconnect": True},
        "model_list": [{"model_name": "chat", "litellm_params": params}],
        "router_settings": {"num_retries": 1, "timeout": 400, "stream_timeout": 120},
    }
    hook = {"preStop": {"sleep": {"seconds": 10}}}
    return {"proxy_config": config, "terminationGracePeriodSeconds": 860, "lifecycle": hook}


def chain() -> Json:
    engines = {
        "*": {
            "tokens_per_second": 66,
            "prefill": "2s",
            "queue": "20s",
            "max_tokens": 4096,
            "cold_start": "300s",
            "wake": "60s",
        }
    }
    client = {"name": "app", "total": "900s", "idle": "900s", "connect": "5s", "retries": 0, "backoff": "1s"}
    return {"liftlock": "chain", "clients": [client], "engines": engines}


def coherent() -> Files:
    inner = route("inner", "serving", "inner", "350s", {"kind": "InferencePool", "name": "llm"}, "llm")
    edge = route("edge", "litellm", "outer", "850s", {"name": "litellm", "port": 4000})
    pool = {
        "apiVersion": "inference.networking.k8s.io/v1", "kind": "InferencePool", "metadata": {"name": "llm", "namespace": "serving"},
        "spec": {"selector": {"matchLabels": {"app": "llm"}}},
    }  # fmt: skip
    manifests = [engine(), service(), pool, inner, edge, gateway("inner"), gateway("outer")]
    return {"manifests.yaml": manifests, "values.yaml": [values()], "chain.yaml": [chain()]}


def written(folder: Path, files: Files) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    for name, documents in files.items():
        (folder / name).write_text(yaml.safe_dump_all(documents, sort_keys=False))
    return [folder]


def checked(folder: Path, files: Files) -> Checked:
    return check(written(folder, files), TODAY)


def rules_of(answer: Checked) -> set[str]:
    return {each.finding.rule for each in answer.findings}


def changed(change: Callable[[Handle], object]) -> Files:
    """The coherent files with one change."""
    handle = Handle(copy.deepcopy(coherent()))
    change(handle)
    return handle.files


class Handle:
    """Short names for the places that tests change."""

    def __init__(self, files: Files) -> None:
        self.files = files
        self.manifests = files["manifests.yaml"]
        self.engine, self.service, self.pool, self.inner, self.edge = self.manifests[:5]
        self.pod = self.engine["spec"]["template"]["spec"]
        self.vllm = self.pod["containers"][0]
        self.values = files["values.yaml"][0]
        self.config = self.values["proxy_config"]
        self.router = self.config["router_settings"]
        self.params = self.config["model_list"][0]["litellm_params"]
        self.rule = self.inner["spec"]["rules"][0]
        self.timeouts = self.rule["timeouts"]
        self.outer = self.edge["spec"]["rules"][0]["timeouts"]
        self.chain = files["chain.yaml"][0]
        self.client = self.chain["clients"][0]
        self.figures = self.chain["engines"]["*"]

    def add(self, kind: str, name: str, namespace: str = "serving", **spec: Any) -> None:
        self.manifests.append(
            {"apiVersion": "x/v1", "kind": kind, "metadata": {"name": name, "namespace": namespace}, "spec": spec}
        )

    def give(self, **hop: Any) -> None:
        """One more hop, written out in chain.yaml, in front of the engine: a chain of its own."""
        self.chain["hops"] = {"given": [{"name": "proxy", "kind": "route", "total": "200s", **hop}]}

    def wake(self, interceptor: Json | None) -> None:
        """Scaled to zero by the HTTP add-on, or by KEDA alone."""
        if interceptor is None:
            self.add("ScaledObject", "llm", scaleTargetRef={"name": "llm"}, minReplicaCount=0)
            return
        self.add(
            "HTTPScaledObject",
            "llm",
            scaleTargetRef={"name": "llm", "service": "llm"},
            replicas={"min": 0, "max": 1},
            **interceptor,
        )
        self.rule["backendRefs"] = [{"name": "keda-add-ons-http-interceptor-proxy", "namespace": "keda"}]
