"""`--fix DIR`: a kustomize Component with JSON 6902 patches, and a layer of Helm values for LiteLLM. Reads and writes files.

The same check on the given paths and DIR together must be clean; what is left is told.
"""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from serving.coherence.chains import chains
from serving.coherence.check import Grouped, findings, group
from serving.coherence.model import Patch
from serving.coherence.objects import InputInvalid, Inventory, Object, patch, read_paths
from serving.coherence.plan import IDLE_WAIT, Changes, aborts, budget_of, rest, times
from serving.coherence.read_litellm import ROUTER

COMPONENT, VALUES = "kustomization.yaml", "litellm-values.yaml"
HEAD = "# Written by `liftlock coherence --fix` from a budget of {:g} s. {}\n"
WAIT = (
    "import re,time,urllib.request\n"
    "time.sleep(5)\n"  # until the endpoint is out of every proxy
    "while True:\n"
    " text=urllib.request.urlopen('http://127.0.0.1:{port}/metrics').read().decode()\n"
    " if not sum(float(n) for n in re.findall(r'^vllm:num_requests_(?:running|waiting)\\{{.*\\}} (.*)$',text,re.M)): break\n"
    " time.sleep(1)\n"
    "# num_requests_running is 0\n"
)


@dataclass(frozen=True)
class Fixed:
    """What was written, and what no manifest can mend."""

    budget: float
    steps: tuple[str, ...]
    left: tuple[Grouped, ...]


def fix(paths: Sequence[Path], folder: Path, budget: float | None) -> Fixed:
    """Raises InputInvalid where the folder is taken or the budget too small."""
    if folder.exists() and (not folder.is_dir() or {each.name for each in folder.iterdir()} - {COMPONENT, VALUES}):
        raise InputInvalid(f"{folder}: holds something else; name a new or empty folder")
    found = read_paths(paths)
    made = chains(found)
    if not made:
        raise InputInvalid("no chain to a model in these files; there is nothing to mend")
    chosen = budget if budget is not None else budget_of(made)
    writer = _Writer(found)
    writer.take(times(made, chosen))
    writer.take(aborts(chains(found)))
    for _ in range(3):
        writer.take(rest(findings(chains(found))))
    writer.write(folder, chosen)
    return Fixed(chosen, tuple(writer.told), group(findings(chains(found))))


class _Writer:
    """Applies changes to the inventory and keeps them as patches and values."""

    def __init__(self, found: Inventory) -> None:
        self.found = found
        self.steps: dict[tuple[str, str, str], list[dict[str, Any]]] = defaultdict(list)  # by kind, namespace, name
        self.overlay: dict[str, Any] = {}  # with proxy_config, by which values of LiteLLM are known
        self.told: list[str] = []
        self.bodies: dict[str, dict[str, Any]] = {}

    def take(self, changes: Changes) -> None:
        for place, value in changes.values.items():
            self.told.append(f"{place.target} {'.'.join(map(str, place.path))}: {_said(place, value)}")
            if place.target == ROUTER:
                self._value(place, value)
            else:
                self._object(place, value)

    def _value(self, place: Patch, value: float) -> None:
        path: list[Any] = list(place.path)
        entry: Any = _encoded(place, value, None)
        if "model_list" in path:  # Helm replaces lists, so the whole list is written
            models = copy.deepcopy(self.found.values()["proxy_config"]["model_list"])
            models[path[2]]["litellm_params"][path[4]] = entry
            path, entry = path[:2], models
        self.overlay.setdefault("proxy_config", {})
        block: Any = self.overlay
        for key in path[:-1]:
            block = block.setdefault(key, {})
        block[path[-1]] = entry
        layers = [each for each in self.found.litellm if each[0] != VALUES]
        self.found.litellm[:] = [*layers, (VALUES, copy.deepcopy(self.overlay))]

    def _object(self, place: Patch, value: float) -> None:
        at = next((index for index, each in enumerate(self.found.objects) if each.key == place.target), None)
        if at is None:
            return
        old = self.found.objects[at]
        body = self.bodies.setdefault(old.key, copy.deepcopy(old.body))
        step = _step(body, place, value)
        patch(body, step, COMPONENT)
        new = Object(old.kind, old.namespace, old.name, body, old.file)
        self.steps[old.kind, old.namespace, old.name].append(step)
        self.found.put(at, new)

    def write(self, folder: Path, budget: float) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        patches = [
            {"target": {"kind": kind, "namespace": namespace, "name": name}, "patch": _dumped(steps)}
            for (kind, namespace, name), steps in self.steps.items()
        ]
        component = {"apiVersion": "kustomize.config.k8s.io/v1alpha1", "kind": "Component", "patches": patches}
        use = "Name this folder under `components:` of your kustomization."
        (folder / COMPONENT).write_text(HEAD.format(budget, use) + _dumped(component))
        if self.overlay:
            use = "Give it to Helm as the last values file of LiteLLM."
            (folder / VALUES).write_text(HEAD.format(budget, use) + _dumped(_plain(self.overlay)))


class _Dumper(yaml.SafeDumper):
    """Text of several lines stands as it is read."""


_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None),
)


def _dumped(value: Any) -> str:
    return str(yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=150))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list) else value


def _said(place: Patch, value: float) -> str:
    if math.isnan(value):
        return "taken out"
    if place.style == "true":
        return "true (from LiteLLM 1.90 on)"
    return "a hook that waits until nothing runs" if math.isinf(value) else f"{value:g}"


def _step(body: dict[str, Any], place: Patch, value: float) -> dict[str, Any]:
    """One operation; parents that are not there come with it."""
    path: list[Any] = list(place.path)
    if math.isnan(value):
        return {"op": "remove", "path": _pointer(path[: path.index("retry") + 1] if "retry" in path else path)}
    entry = _encoded(place, value, body)
    block: Any = body
    for index, key in enumerate(path[:-1]):
        inner = block[key] if isinstance(block, list) else block.get(key)
        if inner is None:
            for missing in reversed(path[index + 1 :]):
                entry = [entry] if missing == "-" else {missing: entry}
            return {"op": "add", "path": _pointer(path[: index + 1]), "value": entry}
        block = inner
    op = "replace" if isinstance(block, list) and path[-1] != "-" else "add"
    return {"op": op, "path": _pointer(path), "value": entry}


def _pointer(path: Sequence[str | int]) -> str:
    return "".join("/" + str(key).replace("~", "~0").replace("/", "~1") for key in path)


def _encoded(place: Patch, value: float, body: dict[str, Any] | None) -> Any:
    """In the notation of its place."""
    kind, _, more = place.style.partition(":")
    if kind == "gateway":
        return f"{math.floor(value)}s"
    if kind == "true":
        return True
    if kind == "env":
        return {"name": more, "value": str(math.ceil(value))}
    if kind == "threshold":
        period, delay = (float(each) for each in more.split(":"))
        return math.ceil((value - delay) / period)
    if kind == "pre-stop":
        if value == IDLE_WAIT:
            return {"exec": {"command": ["python3", "-c", WAIT.format(port=_port(place, body))]}}
        return {"sleep": {"seconds": round(value)}}
    return round(value)


def _port(place: Patch, body: dict[str, Any] | None) -> str:
    block: Any = body
    for key in place.path[: place.path.index("containers") + 2]:
        block = block[key]
    words = [str(each) for each in block.get("args") or ()]
    for index, word in enumerate(words):
        if word == "--port" and index + 1 < len(words):
            return words[index + 1]
        if word.startswith("--port="):
            return word.partition("=")[2]
    return "8000"
