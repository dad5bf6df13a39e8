"""The gateway's wanted state on disk: splits.json is the truth, Envoy's files are rendered from it and watched by Envoy.

Files are replaced, never rewritten in place: Envoy reads whole files, and a killed writer leaves the old ones.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import httpx

from serving.gateway import envoy


class GatewayNotApplied(Exception):
    """Envoy does not confirm the configuration that was written."""


@dataclass(frozen=True)
class Gateway:
    """Where one gateway keeps its files and answers. `admin_url` is Envoy's admin address."""

    folder: Path
    admin_url: str
    engine_url: str
    base_model: str

    def splits(self) -> dict[str, envoy.Split]:
        file = self.folder / "splits.json"
        if not file.exists():
            return {}
        return {row["model"]: envoy.Split(**row) for row in json.loads(file.read_text())}

    def render(self) -> str:
        """Write clusters and routes for the splits on disk; returns the routes' version."""
        splits = list(self.splits().values())
        _replace(
            self.folder / "cds.json", json.dumps(envoy.clusters(self.engine_url, [split.model for split in splits]))
        )
        routes = envoy.routes(splits, self.base_model)
        _replace(self.folder / "rds.json", json.dumps(routes))
        return envoy.version_of(routes)

    def install(self, port: int, admin_port: int) -> None:
        """Write every file Envoy starts from."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with _locked(self.folder / "splits.lock"):  # else a change made meanwhile would be undone
            _replace(self.folder / "bootstrap.json", json.dumps(envoy.bootstrap(self.folder, admin_port)))
            _replace(self.folder / "lds.json", json.dumps(envoy.listeners(self.folder, port)))
            self.render()

    def change(self, model: str, edit: Callable[[envoy.Split | None], envoy.Split], timeout: float = 10) -> envoy.Split:
        """Edit one split under a lock and wait (seconds) until Envoy serves it.

        Raises GatewayNotApplied; the wanted state stays written, so a restarted Envoy comes up with it.
        """
        with _locked(self.folder / "splits.lock"):
            splits = self.splits()
            split = edit(splits.get(model))
            splits[model] = split
            rows = [asdict(splits[name]) for name in sorted(splits)]
            _replace(self.folder / "splits.json", json.dumps(rows, indent=2) + "\n")
            version = self.render()
        self._await(version, timeout)
        return split

    def set_stable(self, model: str, engine_model: str) -> envoy.Split:
        return self.change(model, lambda _: envoy.Split(model, engine_model))

    def set_weight(self, model: str, candidate: str | None, weight: int) -> envoy.Split:
        def edit(split: envoy.Split | None) -> envoy.Split:
            stable = split.stable if split else self.base_model
            return replace(split or envoy.Split(model, stable), candidate=candidate, weight=weight)

        return self.change(model, edit)

    def running(self, model: str, side: str) -> int:
        """Requests under way at that side of the split, by the gateway's own counter. Raises httpx.HTTPError."""
        return self.counters(model, side).get("upstream_rq_active", 0)

    def counters(self, model: str, side: str) -> dict[str, int]:
        """Envoy's counters and gauges of one side's cluster, e.g. upstream_rq_total. Empty before its first use."""
        cluster = f"cluster.{model}-{side}."
        asked = {"filter": f"^{re.escape(cluster)}", "format": "json", "type": "All"}
        answer = httpx.get(f"{self.admin_url}/stats", params=asked, timeout=5).raise_for_status()
        rows = [row for row in answer.json()["stats"] if "name" in row and "value" in row]
        return {row["name"].removeprefix(cluster): int(row["value"]) for row in rows if str(row["value"]).isdigit()}

    def _await(self, version: str, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        observed = "no answer"
        while time.monotonic() < deadline:
            observed = self._served_version() or observed
            if observed == version:
                return
            time.sleep(0.02)
        raise GatewayNotApplied(
            f"the gateway at {self.admin_url} serves routes {observed}, required {version} within {timeout:.0f} s; see `liftlock logs envoy`"
        )

    def _served_version(self) -> str | None:
        try:
            found = httpx.get(
                f"{self.admin_url}/config_dump", params={"resource": "dynamic_route_configs"}, timeout=2
            ).json()
        except (httpx.HTTPError, ValueError):
            return None
        versions = [str(one["version_info"]) for one in found.get("configs", []) if "version_info" in one]
        return versions[0] if versions else None


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.replace(path)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
