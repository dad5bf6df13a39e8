"""What a set of files holds: Kubernetes objects, LiteLLM's configuration, Envoy's, an own chain.yaml, and overlays of --fix.

Every document is taken by its shape, not by its file's name. What is none of these is counted and left out.
"""

from __future__ import annotations

import copy
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from serving.coherence.bounded_yaml import MAX_BYTES, YamlRefused, read_file, read_text

SUFFIXES = (".yaml", ".yml", ".json")
MAX_FILES = 20_000
MAX_TOTAL = 256 << 20
Json = Mapping[str, Any]


class InputInvalid(Exception):
    """Paths or documents that cannot be checked."""


@dataclass(frozen=True)
class Object:
    """One Kubernetes object and where it stands."""

    kind: str
    namespace: str
    name: str
    body: dict[str, Any]
    file: str

    @property
    def key(self) -> str:
        return f"{self.kind}/{self.namespace}/{self.name}"

    @property
    def spec(self) -> dict[str, Any]:
        return mapping(self.body.get("spec"), f"{self.file}: {self.key} spec")

    @property
    def labels(self) -> dict[str, Any]:
        return mapping(mapping(self.body.get("metadata"), self.file).get("labels"), self.file)


@dataclass
class Inventory:
    """Everything that was read."""

    objects: list[Object] = field(default_factory=list)
    litellm: list[tuple[str, dict[str, Any]]] = field(default_factory=list)  # values with proxy_config, in order
    envoy: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    chains: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    ignored: int = 0
    files: int = 0
    _by_kind: dict[str, list[Object]] = field(default_factory=dict)

    def kind(self, *names: str) -> list[Object]:
        if not self._by_kind:
            grouped: dict[str, list[Object]] = defaultdict(list)
            for each in self.objects:
                grouped[each.kind].append(each)
            self._by_kind = dict(grouped)
        return [each for name in names for each in self._by_kind.get(name, ())]

    def put(self, at: int, one: Object) -> None:
        """In the place of another of its kind."""
        self.objects[at] = one
        self._by_kind.clear()

    def values(self) -> dict[str, Any]:
        """LiteLLM's layers merged, in the order of the paths."""
        merged: dict[str, Any] = {}
        for _, layer in self.litellm:
            merged = merge_values(merged, layer)
        return merged

    def find(self, kind: str, namespace: str, name: str) -> Object | None:
        found = (each for each in self.kind(kind) if each.namespace == namespace and each.name == name)
        return next(found, None)


def mapping(value: object, where: str) -> dict[str, Any]:
    """An absent one is empty. Raises InputInvalid."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InputInvalid(f"{where}: {str(value)[:40]!r} stands where an object belongs; mend the manifest")
    return value


def items(value: object, where: str) -> list[dict[str, Any]]:
    """A list of objects; an absent one is empty. Raises InputInvalid."""
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise InputInvalid(f"{where}: {str(value)[:40]!r} stands where a list of objects belongs; mend the manifest")
    return value


def read_paths(paths: Iterable[Path]) -> Inventory:
    """Files and folders, in the order given; within a folder by name. Raises InputInvalid, YamlRefused."""
    found, overlays, total = Inventory(), [], 0
    for path, name in _files(paths):
        total += path.stat().st_size
        if total > MAX_TOTAL or found.files >= MAX_FILES:
            raise InputInvalid(f"more than {MAX_FILES:,} files or {MAX_TOTAL >> 20} MiB; name fewer paths")
        found.files += 1
        documents = _stream(path, name)
        if documents and is_component(documents[0]):
            overlays.append((name, documents[0]))
        else:
            for document in documents:
                add(found, document, name)
    for name, overlay in overlays:
        _apply(found, overlay, name)
    return found


def _stream(path: Path, name: str) -> list[Any]:
    """A chart's templates are no YAML before `helm template`."""
    try:
        return read_file(path, name)
    except YamlRefused:
        if path.parent.name == "templates" and path.stat().st_size < MAX_BYTES and b"{{" in path.read_bytes():
            return []
        raise


def _files(paths: Iterable[Path]) -> Iterator[tuple[Path, str]]:
    for path in paths:
        if path.is_file():
            yield path, str(path)
        elif path.is_dir():
            for folder, folders, names in os.walk(path):
                folders[:] = sorted(each for each in folders if not each.startswith("."))
                for name in sorted(names):
                    file = Path(folder, name)
                    if file.suffix in SUFFIXES and file.is_file():
                        yield file, str(file)
        else:
            raise InputInvalid(f"{path}: no such file or folder; name manifests, values or a configuration")


def is_component(document: object) -> bool:
    """What --fix writes: a kustomize Component with patches."""
    return isinstance(document, dict) and document.get("kind") == "Component" and "patches" in document


def add(found: Inventory, document: Any, file: str) -> None:
    if not isinstance(document, dict):
        found.ignored += 1
    elif document.get("kind") == "List":
        for each in items(document.get("items"), f"{file}: items"):
            add(found, each, file)
    elif "apiVersion" in document and "kind" in document:
        _object(found, document, file)
    elif "proxy_config" in document or "model_list" in document:
        values = document if "proxy_config" in document else {"proxy_config": document}
        found.litellm.append((file, values))
    elif "static_resources" in document or "dynamic_resources" in document or _xds(document):
        found.envoy.append((file, document))
    elif document.get("liftlock") == "chain":
        found.chains.append((file, document))
    else:
        found.ignored += 1


def _xds(document: Json) -> bool:
    resources = document.get("resources")
    return isinstance(resources, list) and any(isinstance(each, dict) and "@type" in each for each in resources)


def _object(found: Inventory, document: dict[str, Any], file: str) -> None:
    metadata = mapping(document.get("metadata"), f"{file}: metadata")
    kind = str(document["kind"])
    one = Object(kind, str(metadata.get("namespace") or "default"), str(metadata.get("name", "")), document, file)
    found.objects.append(one)
    if kind == "ConfigMap":
        for key, text in mapping(document.get("data"), f"{file}: data").items():
            if isinstance(text, str) and "model_list:" in text:
                for inner in read_text(text, f"{file} ({key})"):
                    add(found, inner, file)
    elif kind == "Application":
        _helm_values(found, one)


def _helm_values(found: Inventory, application: Object) -> None:
    """Values that stand in an Argo CD Application: `valuesObject` wins over `values`, as there."""
    spec = application.spec
    for source in [mapping(spec.get("source"), application.file), *items(spec.get("sources"), application.file)]:
        helm = mapping(source.get("helm"), application.file)
        values = helm.get("valuesObject")
        if values is None and isinstance(helm.get("values"), str):
            values = next(iter(read_text(helm["values"], f"{application.file} (values)")), None)
        if isinstance(values, dict) and "proxy_config" in values:
            found.litellm.append((application.file, values))


def merge_values(base: dict[str, Any], over: Json) -> dict[str, Any]:
    """As Helm: maps are merged, null takes a key out, everything else (lists too) is replaced."""
    merged = dict(base)
    for key, value in over.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = merge_values(merged[key], value)
        else:
            merged[key] = value
    return merged


def _apply(found: Inventory, overlay: Json, file: str) -> None:
    """The JSON 6902 patches of a Component that --fix wrote, on the objects that were read."""
    for entry in items(overlay.get("patches"), f"{file}: patches"):
        target = mapping(entry.get("target"), f"{file}: target")
        steps = read_text(str(entry.get("patch", "")), f"{file} (patch)")
        wanted = (target.get("kind"), target.get("namespace", "default"), target.get("name"))
        for index, each in enumerate(found.objects):
            if (each.kind, each.namespace, each.name) == wanted:
                body = copy.deepcopy(each.body)
                for step in steps[0] if steps else ():
                    patch(body, step, file)
                found.put(index, Object(each.kind, each.namespace, each.name, body, each.file))


def patch(body: Any, step: Json, file: str) -> None:
    """One `add`, `replace` or `remove` of RFC 6902. Raises InputInvalid."""
    keys = [key.replace("~1", "/").replace("~0", "~") for key in str(step.get("path", "")).split("/")[1:]]
    try:
        for key in keys[:-1]:
            body = body[int(key)] if isinstance(body, list) else body[key]
        if step.get("op") == "remove":
            del body[int(keys[-1]) if isinstance(body, list) else keys[-1]]
        elif isinstance(body, list):
            if keys[-1] == "-":
                body.append(step["value"])
            elif step.get("op") == "add":
                body.insert(int(keys[-1]), step["value"])
            else:
                body[int(keys[-1])] = step["value"]
        else:
            body[keys[-1]] = step["value"]
    except (KeyError, IndexError, ValueError, TypeError):
        raise InputInvalid(
            f"{file}: the patch of {step.get('path')} fits no object that was read; write it again with --fix"
        ) from None
