"""What was applied of a model, kept in a ConfigMap of its namespace, so that what is not wanted any more is found and removed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from serving.delivery.kube_api import KubeApi
from serving.delivery.record import RECORD

APPLIED = "applied.json"
Object = dict[str, Any]


@dataclass(frozen=True, order=True)
class Key:
    """Names one object on the cluster."""

    api_version: str
    kind: str
    namespace: str
    name: str


def key_of(wanted: Object) -> Key:
    metadata = wanted["metadata"]
    return Key(wanted["apiVersion"], wanted["kind"], metadata.get("namespace", ""), metadata["name"])


@dataclass(frozen=True)
class Inventory:
    """Reads and writes the ConfigMap `MODEL-liftlock`: the record, and the keys of what may exist because of it."""

    api: KubeApi
    namespace: str
    model: str

    @property
    def path(self) -> str:
        return self.api.path("v1", "ConfigMap", self.namespace, f"{self.model}-liftlock")

    def read(self) -> tuple[str, frozenset[Key]]:
        """The record's text, empty where nothing was delivered; and what may exist."""
        data = (self.api.get(self.path) or {}).get("data") or {}
        return data.get(RECORD, ""), frozenset(Key(*each) for each in json.loads(data.get(APPLIED, "[]")))

    def write(self, record: str, applied: Iterable[Key]) -> None:
        keys = [[key.api_version, key.kind, key.namespace, key.name] for key in sorted(applied)]
        labels = {"app.kubernetes.io/managed-by": "liftlock", "app.kubernetes.io/part-of": self.model}
        metadata = {"name": f"{self.model}-liftlock", "namespace": self.namespace, "labels": labels}
        data = {RECORD: record, APPLIED: json.dumps(keys)}
        self.api.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}, force=True)

    def remove(self) -> None:
        self.api.delete(self.path)
