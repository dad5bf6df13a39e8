"""Clients: those whose Deployment is there (Open WebUI, n8n, Tabby, a Prefect worker), OpenAI's SDK, and those of chain.yaml."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from serving.coherence.defaults import implicit
from serving.coherence.duration import seconds
from serving.coherence.model import UNSET, Hop, Limits, Setting
from serving.coherence.objects import InputInvalid, Inventory, items
from serving.coherence.read_pods import Workload, workloads

SDK = "OpenAI SDK"
KEYS = {"name", "total", "attempt", "first", "idle", "connect", "retries", "backoff", "aliases", "modes", "edge"}
TABBY_MODEL = re.compile(r'model_name\s*=\s*"([^"]+)"')


@dataclass(frozen=True)
class Client:
    """`aliases` empty: any. `edge`: it comes from outside, through the routes to the router."""

    hop: Hop
    aliases: tuple[str, ...] = ()
    edge: bool = False
    modes: tuple[bool, ...] = (True, False)


def clients(found: Inventory, chain: dict[str, Any], file: str) -> list[Client]:
    """chain.yaml's list, where it has one, replaces OpenAI's SDK; deployed clients are always there."""
    given = [_given(each, file) for each in items(chain.get("clients"), f"{file}: clients")]
    deployed = [made for pod in workloads(found) if (made := _deployed(found, pod))]
    return [*(given or [sdk()]), *deployed]


def sdk() -> Client:
    """A read timeout counts between two bytes, for streams and for whole answers."""
    read = implicit("openai-sdk-read")
    limits = Limits(idle=read)
    backoff = implicit("openai-sdk-backoff")
    hop = Hop(
        SDK, "client", limits, limits, implicit("openai-sdk-retries"), (backoff.value or 0.0, 8.0), backoff,
        implicit("openai-sdk-connect"),
    )  # fmt: skip
    return Client(hop, edge=True)


def _given(entry: dict[str, Any], file: str) -> Client:
    unknown = set(entry) - KEYS
    if unknown or "name" not in entry:
        raise InputInvalid(
            f"{file}: clients: {', '.join(sorted(unknown)) or 'no name'}; known keys: {', '.join(sorted(KEYS))}"
        )
    limits = Limits(*(read(entry, key, file) for key in ("total", "attempt", "first", "idle")))
    backoff = read(entry, "backoff", file)
    modes = {"stream": (True,), "whole": (False,), "both": (True, False)}.get(str(entry.get("modes", "both")))
    if modes is None:
        raise InputInvalid(f"{file}: modes of {entry['name']}: stream, whole or both")
    hop = Hop(
        str(entry["name"]), "client", limits, limits, read(entry, "retries", file), (backoff.value or 0.0, 8.0), backoff,
        read(entry, "connect", file),
    )  # fmt: skip
    return Client(hop, tuple(map(str, entry.get("aliases") or ())), bool(entry.get("edge", True)), modes)


def read(entry: dict[str, Any], key: str, file: str) -> Setting:
    """A value of chain.yaml; unset where it is not there."""
    if entry.get(key) is None:
        return replace(UNSET, value=0.0, where="no retries") if key == "retries" else UNSET
    where = f"{entry.get('name', 'chain')} {key}"
    style = "number" if key in ("retries", "queue") else "any"
    return Setting(
        seconds(entry[key], style, f"{file}: {where}"),
        f"{file}: {where}",
        False,
        file,
        getattr(entry, "lines", {}).get(key, 1),
    )


def _deployed(found: Inventory, pod: Workload) -> Client | None:
    image = pod.image.rpartition("/")[2].partition("@")[0].partition(":")[0]
    if image == "open-webui":
        return _total(pod, "Open WebUI", "open-webui-total", "AIOHTTP_CLIENT_TIMEOUT")
    if image == "n8n":
        return _total(pod, "n8n", "n8n-total")
    if image == "tabby":
        return replace(_total(pod, "Tabby", "tabby-total"), aliases=_tabby_models(found, pod))
    return _prefect(pod) if "prefect" in image else None


def _total(pod: Workload, name: str, row: str, variable: str = "") -> Client:
    """A limit on the whole exchange; `variable` sets it in seconds, where there is one."""
    index, value = _variable(pod, variable)
    patch = pod.patch("containers", pod.index, "env", "-" if index is None else index, style=f"env:{variable}")
    if not value:
        total = implicit(row, patch if variable else None, pod.object.file, getattr(pod.container, "line", 1))
    else:
        where = f"{pod.object.key} env {variable}"
        read_value = seconds(value, "number", f"{pod.object.file}: {where}")
        total = Setting(read_value or None, where, False, pod.object.file, getattr(pod.container, "line", 1), patch)
    limits = Limits(total=total, attempt=total)
    return Client(Hop(name, "client", limits, limits))


def _prefect(pod: Workload) -> Client | None:
    """A worker calls models with OpenAI's SDK, unless chain.yaml says otherwise; its own tasks have no limit by default."""
    return replace(sdk(), hop=replace(sdk().hop, name="Prefect worker"), edge=False)


def _variable(pod: Workload, name: str) -> tuple[int | None, str | None]:
    for index, each in enumerate(items(pod.container.get("env"), pod.object.file)):
        if name and each.get("name") == name and "value" in each:
            return index, str(each["value"])
    return None, None


def _tabby_models(found: Inventory, pod: Workload) -> tuple[str, ...]:
    """The aliases that config.toml names, in a ConfigMap of its namespace."""
    names: list[str] = []
    for one in found.kind("ConfigMap"):
        if one.namespace == pod.object.namespace:
            names += [name for text in (one.body.get("data") or {}).values() for name in TABBY_MODEL.findall(str(text))]
    return tuple(dict.fromkeys(names))
