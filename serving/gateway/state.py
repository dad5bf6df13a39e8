"""The gateway's wanted state on disk: splits.json is the truth, Envoy's files are rendered from it and watched by Envoy.

Files are replaced, never rewritten in place: Envoy reads whole files, and a killed writer leaves the old ones.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

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

    def render(self, before: Sequence[envoy.Split] = (), deadline: float = 0) -> str:
        """Write clusters and routes for the splits on disk; returns the routes' version.

        Clusters come first and are waited for until `deadline`; those of the splits `before` stay, so that their requests end.
        """
        splits = list(self.splits().values())
        clusters = envoy.clusters(self.engine_url, [*before, *splits])
        _replace(self.folder / "cds.json", json.dumps(clusters))
        self._await_clusters({str(one["name"]) for one in clusters["resources"]}, deadline)
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
        deadline = time.monotonic() + timeout
        with _locked(self.folder / "splits.lock"):
            splits = self.splits()
            before = list(splits.values())
            split = edit(splits.get(model))
            splits[model] = split
            rows = [asdict(splits[name]) for name in sorted(splits)]
            _replace(self.folder / "splits.json", json.dumps(rows, indent=2) + "\n")
            version = self.render(before, deadline)
        self._await(version, deadline, timeout)
        return split

    def set_stable(self, model: str, engine_model: str, engine: str | None = None) -> envoy.Split:
        """`engine` is the address of an engine of its own."""
        return self.change(model, lambda _: envoy.Split(model, engine_model, stable_engine=engine))

    def set_weight(self, model: str, candidate: str | None, weight: int, engine: str | None = None) -> envoy.Split:
        def edit(split: envoy.Split | None) -> envoy.Split:
            whole = split or envoy.Split(model, self.base_model)
            return replace(whole, candidate=candidate, weight=weight, candidate_engine=engine)

        return self.change(model, edit)

    def running(self, model: str, side: str, engine: str | None = None) -> int:
        """Requests under way at that side of the split, by the gateway's own counter. Raises httpx.HTTPError."""
        return self.counters(model, side, engine).get("upstream_rq_active", 0)

    def counters(self, model: str, side: str, engine: str | None = None) -> dict[str, int]:
        """Envoy's counters and gauges of one side's cluster, e.g. upstream_rq_total. Empty before its first use."""
        cluster = f"cluster.{envoy.cluster_of(model, side, engine)}."
        asked = {"filter": f"^{re.escape(cluster)}", "format": "json", "type": "All"}
        answer = httpx.get(f"{self.admin_url}/stats", params=asked, timeout=5).raise_for_status()
        rows = [row for row in answer.json()["stats"] if "name" in row and "value" in row]
        return {row["name"].removeprefix(cluster): int(row["value"]) for row in rows if str(row["value"]).isdigit()}

    def _await(self, version: str, deadline: float, timeout: float) -> None:
        observed = "no answer"
        while time.monotonic() < deadline:
            observed = self._served_version() or observed
            if observed == version:
                return
            time.sleep(0.02)
        raise GatewayNotApplied(
            f"the gateway at {self.admin_url} serves routes {observed}, required {version} within {timeout:.0f} s; see `liftlock logs envoy`"
        )

    def _await_clusters(self, names: set[str], deadline: float) -> None:
        """Returns when all take requests, or at the deadline: then the routes will not be confirmed either."""
        while time.monotonic() < deadline:
            if {one["cluster"]["name"] for one in self._dump("dynamic_active_clusters") if "cluster" in one} >= names:
                return
            time.sleep(0.02)

    def _served_version(self) -> str | None:
        versions = [str(one["version_info"]) for one in self._dump("dynamic_route_configs") if "version_info" in one]
        return versions[0] if versions else None

    def _dump(self, resource: str) -> list[dict[str, Any]]:
        """Nothing where Envoy does not answer."""
        try:
            answer = httpx.get(f"{self.admin_url}/config_dump", params={"resource": resource}, timeout=2).json()
        except (httpx.HTTPError, ValueError):
            return []
        return list(answer.get("configs", []))


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.replace(path)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
