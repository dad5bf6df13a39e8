"""The delivery target kubernetes: a step is a server-side apply as the field manager `liftlock`.

Fields of other managers stay. A field that Liftlock sets and another manager took is told and taken back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from serving.delivery.change import Change, diff
from serving.delivery.conflicts import Conflict, read_conflicts
from serving.delivery.effect import DeliveryFailed
from serving.delivery.inventory import Inventory, Key, key_of
from serving.delivery.kube_api import KubeApi, patiently
from serving.delivery.ready import missing
from serving.delivery.record import Record, files_of, from_text, to_text
from serving.delivery.trouble import trouble
from serving.kube.connect import ClusterRefused
from serving.manifests.render import objects

LOOK_SECONDS = 0.5
CONFLICT = 409
Object = dict[str, Any]


@dataclass(frozen=True)
class ApplyEffect:
    """`seconds` is for one step until every workload is ready. `tell` gets each conflict."""

    api: KubeApi
    namespace: str
    model: str
    seconds: float
    tell: Callable[[Conflict], None]

    @property
    def inventory(self) -> Inventory:
        return Inventory(self.api, self.namespace, self.model)

    def read(self) -> Record | None:
        """Raises RecordUnread, ClusterRefused, ClusterUnreachable."""
        text, _ = patiently(self.inventory.read, self.seconds)
        return from_text(text) if text else None

    def write(self, change: Change) -> None:
        """What may exist is written down before it is made, so that a killed step leaves nothing that is not found again."""
        deadline = time.monotonic() + self.seconds
        wanted = objects_of(change.record)
        patiently(lambda: self._apply(change, wanted), self.seconds)
        self._await_ready([each for each in wanted if not change.undo or each["kind"] == "HTTPRoute"], deadline)
        patiently(lambda: self._prune(change, wanted), self.seconds)

    def confirm_gone(self) -> None:
        """The record goes with the last object, so there is nothing to wait for."""

    def preview(self, change: Change) -> str:
        """Against what was applied last."""
        text, _ = self.inventory.read()
        before = files_of(from_text(text)) if text else {}
        return diff(_manifests(before), _manifests(files_of(change.record)))

    def _apply(self, change: Change, wanted: list[Object]) -> None:
        held, before = self.inventory.read()
        text = (
            to_text(change.record) if change.record else held
        )  # until the last object is gone: nobody else would come back
        self.inventory.write(text, before | {key_of(each) for each in wanted})
        for each in wanted:
            self._take(each)

    def _take(self, wanted: Object) -> None:
        try:
            self.api.apply(wanted, force=False)
        except ClusterRefused as refused:
            if refused.status != CONFLICT:
                raise
            for conflict in read_conflicts(wanted["kind"], wanted["metadata"]["name"], refused.causes):
                self.tell(conflict)
            self.api.apply(wanted, force=True)

    def _prune(self, change: Change, wanted: list[Object]) -> None:
        """Only what an earlier step made; the traffic has left it in the step before."""
        stays = {key_of(each) for each in wanted}
        _, known = self.inventory.read()
        for key in sorted(known - stays):
            self.api.delete(self._path(key))
        if change.record:
            self.inventory.write(to_text(change.record), stays)
        else:
            self.inventory.remove()

    def _await_ready(self, wanted: list[Object], deadline: float) -> None:
        said = ""
        while True:
            left = max(deadline - time.monotonic(), 0)
            found = patiently(lambda: [self.api.get(self.api.path_of(each)) or each for each in wanted], left)
            said = next((why for each in found if (why := missing(each))), "")
            if not said:
                return
            if time.monotonic() > deadline:
                raise DeliveryFailed(
                    f"not ready after {self.seconds:.0f} s: {said}{trouble(self.api, self.namespace, self.model)}"
                )
            time.sleep(LOOK_SECONDS)

    def _path(self, key: Key) -> str:
        return self.api.path(key.api_version, key.kind, key.namespace or None, key.name)


def objects_of(record: Record | None) -> list[Object]:
    """In the order in which they can be applied."""
    return [each for documents in objects(record.desired).values() for each in documents] if record else []


def _manifests(files: Mapping[str, str]) -> dict[str, str]:
    """Without what is not applied: the record, the kustomization and Helm values."""
    return {path: text for path, text in files.items() if path.endswith(".yaml") and _is_applied(text)}


def _is_applied(text: str) -> bool:
    first = next(yaml.safe_load_all(text), None) or {}
    return "metadata" in first
