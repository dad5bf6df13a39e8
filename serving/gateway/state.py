"""The gateway's wanted state on disk: splits.json is the truth, Envoy's files are rendered from it and watched by Envoy.

Files are replaced, never rewritten in place: Envoy reads whole files, and a killed writer leaves the old ones.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any

import httpx

from serving.gateway.envoy import bootstrap, cluster_of, clusters
from serving.gateway.files import keep_ballast, locked, replace_file
from serving.gateway.keys import Key, read_keys, write_keys
from serving.gateway.listener import BEGUN, listeners
from serving.gateway.model import DEFAULT_LIMITS, Endpoint, Limits, Split
from serving.gateway.parts import version_of
from serving.gateway.routes import Table, routes

ENGINES = ("stable_engine", "candidate_engine")


class GatewayNotApplied(Exception):
    """Envoy does not confirm the configuration that was written."""


@dataclass(frozen=True)
class Gateway:
    """Where one gateway keeps its files and answers. `admin_url` is Envoy's admin address.

    `fallback` is asked in its order where the engine fails before the first byte; `endpoints` are servers of further models;
    spans go to `otlp_url` (OTLP over HTTP), where one is named.
    """

    folder: Path
    admin_url: str
    engine_url: str
    base_model: str
    limits: Limits = DEFAULT_LIMITS
    fallback: tuple[Endpoint, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    otlp_url: str | None = None

    def splits(self) -> dict[str, Split]:
        file = self.folder / "splits.json"
        if not file.exists():
            return {}
        return {row["model"]: Split(**row) for row in json.loads(file.read_text())}

    def render(self, before: Sequence[Split] = (), deadline: float = 0, *, last_room: bool = False) -> str:
        """Write clusters and routes for the splits and keys on disk; returns the routes' version. `last_room`: see replace_file.

        Clusters come first and are waited for until `deadline`; those of the splits `before` stay, so that their requests end.
        """
        splits = list(self.splits().values())
        found = clusters(
            self.engine_url,
            [*before, *splits],
            limits=self.limits,
            fallback=self.fallback,
            endpoints=self.endpoints,
            otlp_url=self.otlp_url,
        )
        replace_file(self.folder / "cds.json", json.dumps(found), last_room=last_room)
        self._await_clusters({str(one["name"]) for one in found["resources"]}, deadline)
        table = Table(
            splits, self.base_model, read_keys(self.folder), self.fallback, self.endpoints, self.limits, self.engine_url
        )
        rendered = routes(table)
        replace_file(self.folder / "rds.json", json.dumps(rendered), last_room=last_room)
        return version_of(rendered)

    def install(self, port: int, admin_port: int) -> None:
        """Write every file Envoy starts from."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder / "splits.lock"):  # else a change made meanwhile would be undone
            replace_file(self.folder / "bootstrap.json", json.dumps(bootstrap(self.folder, admin_port)))
            found = listeners(self.folder, port, self.limits, otlp=self.otlp_url is not None)
            replace_file(self.folder / "lds.json", json.dumps(found))
            self.render()

    def change(self, model: str, edit: Callable[[Split | None], Split], timeout: float = 10) -> Split:
        """Edit one split under a lock and wait (seconds) until Envoy serves it.

        Raises GatewayNotApplied; the wanted state stays written, so a restarted Envoy comes up with it.
        """
        deadline = time.monotonic() + timeout
        with locked(self.folder / "splits.lock"):
            splits = self.splits()
            before = list(splits.values())
            split = edit(splits.get(model))
            splits[model] = split
            if split.weight:
                keep_ballast(self.folder)
            rows = [asdict(splits[name]) for name in sorted(splits)]
            undo = not split.weight
            replace_file(self.folder / "splits.json", json.dumps(rows, indent=2) + "\n", last_room=undo)
            version = self.render(before, deadline, last_room=undo)
        self._await(version, deadline, timeout)
        return split

    def change_keys(
        self, edit: Callable[[tuple[Key, ...] | None], Sequence[Key] | None], timeout: float = 10
    ) -> Sequence[Key] | None:
        """Edit the API keys under the lock of the splits and wait until Envoy asks for them. Raises KeyRefused, GatewayNotApplied."""
        with locked(self.folder / "splits.lock"):
            keys = edit(read_keys(self.folder))
            write_keys(self.folder, keys)
            version = self.render()
        self._await(version, time.monotonic() + timeout, timeout)
        return keys

    def readdress(self, moved: dict[str, str]) -> None:
        """Engines that have another address now, before the files are written anew by `install`."""
        if all(old == new for old, new in moved.items()) or not self.folder.exists():
            return
        with locked(self.folder / "splits.lock"):
            rows = [
                {**asdict(one), **{side: moved.get(url, url) for side in ENGINES if (url := getattr(one, side))}}
                for one in self.splits().values()
            ]
            replace_file(self.folder / "splits.json", json.dumps(rows, indent=2) + "\n")

    def set_stable(self, model: str, engine_model: str, engine: str | None = None) -> Split:
        """`engine` is the address of an engine of its own."""
        return self.change(model, lambda _: Split(model, engine_model, stable_engine=engine))

    def forget(self, model: str, timeout: float = 10) -> None:
        """The name is served no more. Raises GatewayNotApplied."""
        deadline = time.monotonic() + timeout
        with locked(self.folder / "splits.lock"):
            before = self.splits()
            rows = [asdict(before[name]) for name in sorted(before) if name != model]
            replace_file(self.folder / "splits.json", json.dumps(rows, indent=2) + "\n")
            version = self.render(list(before.values()), deadline)
        self._await(version, deadline, timeout)

    def set_weight(
        self, model: str, candidate: str | None, weight: int, engine: str | None = None, sticky: str | None = None
    ) -> Split:
        def edit(split: Split | None) -> Split:
            whole = split or Split(model, self.base_model)
            return replace(
                whole, candidate=candidate, weight=weight, candidate_engine=engine, sticky=sticky, closed=None, mirror=0
            )

        return self.change(model, edit)

    def set_mirror(self, model: str, candidate: str, percent: int, engine: str | None = None) -> Split:
        """The candidate gets copies of requests and no weight."""

        def edit(split: Split | None) -> Split:
            whole = split or Split(model, self.base_model)
            return replace(whole, candidate=candidate, weight=0, candidate_engine=engine, mirror=percent)

        return self.change(model, edit)

    def close(self, model: str, seconds: float) -> Split:
        """No new request reaches its engine."""
        return self.change(model, lambda split: replace(split or Split(model, self.base_model), closed=ceil(seconds)))

    def reopen(self, model: str) -> None:
        if self.splits()[model].closed is not None:
            self.change(model, lambda split: replace(split or Split(model, self.base_model), closed=None))

    def counters(self, model: str, side: str, engine: str | None = None) -> dict[str, int]:
        """Envoy's counters and gauges of one side's cluster, e.g. upstream_rq_total. Empty before its first use."""
        cluster = f"cluster.{cluster_of(model, side, engine)}."
        return {name.removeprefix(cluster): value for name, value in self.stats(f"^{re.escape(cluster)}").items()}

    def under_way(self) -> int:
        """Requests of all models that the gateway has begun and not ended. Raises httpx.HTTPError."""
        return self.stats(f"^{re.escape(BEGUN)}$").get(BEGUN, 0)

    def stats(self, pattern: str) -> dict[str, int]:
        """Envoy's counters and gauges whose name the regular expression finds. Raises httpx.HTTPError."""
        asked = {"filter": pattern, "format": "json", "type": "All"}
        answer = httpx.get(f"{self.admin_url}/stats", params=asked, timeout=5).raise_for_status()
        rows = [row for row in answer.json()["stats"] if "name" in row and "value" in row]
        return {row["name"]: int(row["value"]) for row in rows if str(row["value"]).isdigit()}

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
