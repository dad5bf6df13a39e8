"""Pods: grace period, preStop, probes, vLLM's arguments and environment; of Deployments, KServe's services, and their kin."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from serving.coherence.defaults import implicit
from serving.coherence.duration import seconds
from serving.coherence.model import UNSET, Drain, Engine, Patch, Setting
from serving.coherence.objects import Inventory, Object, items, mapping

WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Pod", "InferenceService", "LLMInferenceService")
IDLE_HOOK = "num_requests_running"  # a preStop command that reads this metric waits for the engine
SLEEP = re.compile(r"\bsleep\s+(\d+(?:\.\d+)?)")


@dataclass(frozen=True)
class Workload:
    """A pod template with the object that it is of."""

    object: Object
    path: tuple[str | int, ...]  # to the pod spec
    spec: dict[str, Any]
    labels: dict[str, Any]
    container: dict[str, Any]
    index: int
    image: str
    env: dict[str, str]
    argv: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.object.namespace}/{self.object.name}"

    def at(self, *keys: str | int) -> tuple[str | int, ...]:
        return (*self.path, *keys)

    def setting(self, value: float | None, keys: tuple[str | int, ...], style: str = "number") -> Setting:
        """A value that stands in the pod spec."""
        where = f"{self.object.key} {'.'.join(map(str, keys))}"
        return Setting(
            value,
            where,
            False,
            self.object.file,
            line(self.object.body, self.at(*keys)),
            self.patch(*keys, style=style),
        )

    def patch(self, *keys: str | int, style: str = "number") -> Patch:
        return Patch(self.object.key, self.at(*keys), style)

    def argument(self, flag: str) -> str | None:
        """Of `--flag value`, `--flag=value`; underscores and dashes are the same, as for vLLM; the last one wins."""
        found = None
        for index, word in enumerate(self.argv):
            name, equals, value = word.partition("=")
            if name.replace("_", "-") == flag:
                found = value if equals else (self.argv[index + 1] if index + 1 < len(self.argv) else "")
        return found


def line(body: Any, path: tuple[str | int, ...]) -> int:
    """Of the deepest key of `path` that is there."""
    found = getattr(body, "line", 1)
    for key in path:
        if isinstance(body, dict) and key in body:
            found = getattr(body, "lines", {}).get(key, found)
            body = body[key]
        elif isinstance(body, list) and isinstance(key, int) and key < len(body):
            body = body[key]
            found = getattr(body, "line", found)
        else:
            break
    return int(found)


def workloads(found: Inventory) -> list[Workload]:
    return [made for each in found.kind(*WORKLOADS) if (made := workload(each))]


def workload(one: Object) -> Workload | None:
    """None where there is no container to read."""
    path, spec, labels = _pod(one)
    containers = items(spec.get("containers"), f"{one.file}: {one.key} containers")
    if not containers:
        return None
    index = next((at for at, each in enumerate(containers) if is_model(each)), 0)
    chosen = containers[index]
    env = {str(each.get("name")): str(each["value"]) for each in items(chosen.get("env"), one.file) if "value" in each}
    return Workload(one, path, spec, labels, chosen, index, str(chosen.get("image", "")), env, _words(chosen))


def is_model(container: Mapping[str, Any]) -> bool:
    image = str(container.get("image", ""))
    return container.get("name") in ("kserve-container", "main", "vllm") or "vllm" in image or "inference-sim" in image


def _words(container: Mapping[str, Any]) -> tuple[str, ...]:
    """`sh -c "vllm serve …"` is read as its words."""
    words: list[str] = []
    for key in ("command", "args"):
        for word in container.get(key) or ():
            text = str(word)
            try:
                words += shlex.split(text) if " --" in text else [text]
            except ValueError:
                words.append(text)
    return tuple(words)


def _pod(one: Object) -> tuple[tuple[str | int, ...], dict[str, Any], dict[str, Any]]:
    spec, where = one.spec, f"{one.file}: {one.key}"
    if one.kind == "Pod":
        return ("spec",), spec, one.labels
    if one.kind == "InferenceService":
        predictor = mapping(spec.get("predictor"), where)
        model = mapping(predictor.get("model"), where)
        if model and "containers" not in predictor:
            kind = str(mapping(model.get("modelFormat"), where).get("name", ""))
            predictor = {**predictor, "containers": [{"name": "kserve-container", "image": kind, **model}]}
        return ("spec", "predictor"), predictor, {"serving.kserve.io/inferenceservice": one.name, **one.labels}
    if one.kind == "LLMInferenceService":
        return ("spec", "template"), mapping(spec.get("template"), where), one.labels
    template = mapping(spec.get("template"), where)
    labels = mapping(mapping(template.get("metadata"), where).get("labels"), where)
    return ("spec", "template", "spec"), mapping(template.get("spec"), where), labels


def drain(pod: Workload) -> Drain:
    grace = pod.spec.get("terminationGracePeriodSeconds")
    patch = pod.patch("terminationGracePeriodSeconds", style="integer")
    period = (
        implicit("kubernetes-grace", patch, pod.object.file, line(pod.object.body, pod.path))
        if grace is None
        else pod.setting(seconds(grace, "number", pod.object.key), ("terminationGracePeriodSeconds",), "integer")
    )
    keys: tuple[str | int, ...] = ("containers", pod.index, "lifecycle")
    hook = mapping(mapping(pod.container.get("lifecycle"), pod.object.file).get("preStop"), pod.object.file)
    is_vllm = is_model(pod.container)
    text = pod.argument("--shutdown-timeout")
    shutdown = (
        implicit("vllm-shutdown")
        if text is None
        else pod.setting(seconds(text, "number", pod.object.key), ("containers", pod.index, "args"))
    )
    stop = pod.setting(_pre_stop(hook, pod), (*keys, "preStop"), "pre-stop")
    return Drain(period, stop, is_vllm, shutdown, IDLE_HOOK in str(hook.get("exec", "")))


def _pre_stop(hook: dict[str, Any], pod: Workload) -> float | None:
    """Seconds that the hook sleeps; None without a hook."""
    if not hook:
        return None
    if "sleep" in hook:
        return seconds(
            mapping(hook["sleep"], pod.object.file).get("seconds"), "number", f"{pod.object.key} preStop.sleep"
        )
    slept = SLEEP.search(" ".join(map(str, mapping(hook.get("exec"), pod.object.file).get("command") or ())))
    return float(slept.group(1)) if slept else 0.0


def startup(pod: Workload) -> tuple[Setting, bool]:
    """Seconds until the kubelet ends a start, and whether it is the liveness probe that does."""
    for name in ("startupProbe", "livenessProbe"):
        probe = mapping(pod.container.get(name), pod.object.file)
        if probe:
            where = f"{pod.object.key} {name}"
            delay = seconds(probe.get("initialDelaySeconds", 0), "number", where)
            each = seconds(probe.get("periodSeconds", 10), "number", where)
            tries = seconds(probe.get("failureThreshold", 3), "number", where)
            keys = ("containers", pod.index, name, "failureThreshold")
            return pod.setting(delay + each * tries, keys, f"threshold:{each:g}:{delay:g}"), name == "livenessProbe"
    return UNSET, False


def engine(pod: Workload) -> Engine:
    """What the manifest says of it; measured figures are not there."""
    began, liveness = startup(pod)
    context = pod.argument("--max-model-len")
    replicas = pod.object.spec.get("replicas", 1)
    seqs = pod.argument("--max-num-seqs")
    queued = pod.argument("--max-num-queued-reqs")
    kept = pod.env.get("VLLM_HTTP_TIMEOUT_KEEP_ALIVE")
    arguments, environment = ("containers", pod.index, "args"), ("containers", pod.index, "env")
    return Engine(
        pod.name,
        context=_tokens(context),
        max_num_seqs=_default_seqs(pod) if seqs is None else _number(pod, seqs, arguments),
        admits=UNSET if queued is None else _number(pod, queued, arguments),
        replicas=replicas if isinstance(replicas, int) and replicas > 0 else 1,
        drain=drain(pod),
        startup=began,
        liveness_only=liveness,
        progress=_progress(pod.object) if pod.object.kind == "Deployment" else UNSET,
        keep_alive=implicit("vllm-keep-alive") if kept is None else _number(pod, kept, environment),
    )


LARGE_GPU = re.compile(r"(?i)\b(?:h100|h200|gh200|b200|b300|gb200|gb300|mi300x|mi325x)\b")  # 70 GiB or more, A100 apart


def _default_seqs(pod: Workload) -> Setting:
    """By the device that the image and the node labels name; where they name none, the smaller of the two for GPUs."""
    if re.search(r"vllm[^:@]*[-/]cpu\b", pod.image):
        world = _world(pod, ("--tensor-parallel-size", "-tp")) * _world(pod, ("--pipeline-parallel-size", "-pp"))
        one = implicit("vllm-max-num-seqs-cpu")
        return replace(one, value=(one.value or 0.0) * world)
    labels = str([pod.spec.get("nodeSelector"), pod.spec.get("affinity")])
    return implicit("vllm-max-num-seqs-large" if LARGE_GPU.search(labels) else "vllm-max-num-seqs")


def _world(pod: Workload, flags: tuple[str, ...]) -> float:
    text = next((found for flag in flags if (found := pod.argument(flag))), "1")
    return seconds(text, "number", pod.object.key)


def _number(pod: Workload, text: str, keys: tuple[str | int, ...]) -> Setting:
    return pod.setting(seconds(text, "number", pod.object.key), keys)


def _progress(one: Object) -> Setting:
    patch = Patch(one.key, ("spec", "progressDeadlineSeconds"), "integer")
    if "progressDeadlineSeconds" not in one.spec:
        return implicit("kubernetes-progress", patch, one.file, line(one.body, ("spec",)))
    value = seconds(one.spec["progressDeadlineSeconds"], "number", one.key)
    return Setting(value, f"{one.key} progressDeadlineSeconds", False, one.file, 1, patch)


def _tokens(text: str | None) -> int | None:
    """vLLM takes 8192, 8k (1000s) and 8K (1024s); `auto` and -1 are not known here."""
    match = re.fullmatch(r"(\d{1,9}(?:\.\d+)?)([kKmM]?)", text or "")
    if not match:
        return None
    return int(float(match.group(1)) * {"": 1, "k": 1000, "K": 1024, "m": 10**6, "M": 2**20}[match.group(2)])


def served_names(pod: Workload) -> tuple[str, ...]:
    """--served-model-name takes several names; without it the model's own."""
    names: list[str] = []
    for index, word in enumerate(pod.argv):
        flag, equals, value = word.partition("=")
        if flag.replace("_", "-") != "--served-model-name":
            continue
        if equals:
            names.append(value)
        for following in pod.argv[index + 1 :]:
            if following.startswith("-") or equals:
                break
            names.append(following)
    model = pod.argument("--model")
    if not names and not model and "serve" in pod.argv[:-1]:
        model = pod.argv[pod.argv.index("serve") + 1]
    return tuple(names) or ((model,) if model else ())
