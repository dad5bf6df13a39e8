"""Waits until Argo CD has a commit in force: told to look at once, asked to sync where it does not by itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from serving.delivery.argocd import is_automated, read, retries, revision_tried
from serving.delivery.effect import DeliveryFailed
from serving.delivery.kube_api import KubeApi, patiently
from serving.delivery.trouble import trouble

LOOK_SECONDS = 0.5
REFRESH_SECONDS = 10.0
REFRESH = {"metadata": {"annotations": {"argocd.argoproj.io/refresh": "normal"}}}
SYNC_ATTEMPTS = 2  # an API server that restarts in the middle of a sync fails it, and the next one works


@dataclass(frozen=True)
class ArgoCd:
    """`application` syncs the model's folder into `workloads`, the namespace of its pods. `seconds` is for one step."""

    api: KubeApi
    application: str
    namespace: str
    workloads: str
    seconds: float

    def wait(self, model: str, revision: str, holds: Callable[[str], bool], *, healthy: bool = True) -> None:
        """Until the revision is Synced and Healthy, or Synced alone. Raises DeliveryFailed with what Argo CD and the pods say, ClusterRefused."""
        deadline = time.monotonic() + self.seconds
        refreshed, said = 0.0, "Argo CD has said nothing"
        failures: set[str] = set()
        while time.monotonic() < deadline:
            left = deadline - time.monotonic()
            if time.monotonic() - refreshed > REFRESH_SECONDS:
                patiently(lambda: self.api.merge(self._path(), REFRESH), left)
                refreshed = time.monotonic()
            application = patiently(self._application, left)
            self._end_older(application, holds, left)
            found = read(application, holds, healthy=healthy)
            said = found.reason
            if found.verdict == "in_force":
                return
            again = found.verdict == "failed" and found.ended not in failures
            if again:
                failures.add(found.ended)
            if len(failures) == SYNC_ATTEMPTS:
                raise DeliveryFailed(f"Argo CD cannot sync {revision[:12]}: {said}")
            if again or self._idle(application, holds):
                patiently(lambda: self._sync(revision), left)
            time.sleep(LOOK_SECONDS)
        raise DeliveryFailed(
            f"{revision[:12]} is not in force after {self.seconds:.0f} s: {said}{trouble(self.api, self.workloads, model)}"
        )

    def _path(self) -> str:
        return self.api.path("argoproj.io/v1alpha1", "Application", self.namespace, self.application)

    def _application(self) -> dict[str, Any]:
        found = self.api.get(self._path())
        if found is None:
            raise DeliveryFailed(
                f"there is no Application {self.application} in {self.namespace}; apply deploy/'s, or name it in LIFTLOCK_ARGOCD_APPLICATION"
            )
        return found

    def _idle(self, application: dict[str, Any], holds: Callable[[str], bool]) -> bool:
        """It has seen the step, nothing runs, and it does not sync by itself."""
        status = application.get("status") or {}
        compared = status.get("sync") or {}
        running = application.get("operation") or (status.get("operationState") or {}).get("phase") == "Running"
        return (
            not is_automated(application) and not running
            and compared.get("status") == "OutOfSync" and holds(str(compared.get("revision") or ""))
        )  # fmt: skip

    def _end_older(self, application: dict[str, Any], holds: Callable[[str], bool], left: float) -> None:
        """What `argocd app terminate-op` writes: a sync of an earlier step that fails again and again keeps the next one out."""
        operation = (application.get("status") or {}).get("operationState") or {}
        if retries(operation) and not holds(revision_tried(operation)):
            ended = {"status": {"operationState": {"phase": "Terminating"}}}
            patiently(lambda: self.api.merge(self._path(), ended), left)

    def _sync(self, revision: str) -> None:
        """What `argocd app sync --prune` writes. A sync that runs is not disturbed."""
        if (self.api.get(self._path()) or {}).get("operation"):
            return
        operation = {"initiatedBy": {"username": "liftlock"}, "sync": {"revision": revision, "prune": True}}
        self.api.merge(self._path(), {"operation": operation})
