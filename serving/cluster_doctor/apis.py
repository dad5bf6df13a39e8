"""The API server's version and the kinds that it serves. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from serving.cluster_doctor.expected import OLDEST_MINOR, Api, Expected
from serving.cluster_doctor.model import ABSENT, FOUND, Cluster, Finding
from serving.cluster_doctor.paths import VERSION


def check_version(cluster: Cluster, _: Expected) -> Iterator[Finding]:
    version = cluster.get(VERSION) or {}
    minor = re.match(r"\d+", str(version.get("minor", "")))
    if minor is None or int(minor[0]) < OLDEST_MINOR:
        yield Finding(
            "kubernetes-version", "API server", str(version.get("gitVersion", "unknown")), f"v1.{OLDEST_MINOR} or newer",
            "update the cluster; GKE's REGULAR channel has 1.36",
        )  # fmt: skip


def check_apis(cluster: Cluster, wanted: Expected) -> Iterator[Finding]:
    for api in wanted.apis:
        answer = cluster.answers[api.root]
        if answer.status == FOUND and any(one.get("name") == api.plural for one in answer.body.get("resources") or ()):
            continue
        yield _absent(cluster, api)


def _absent(cluster: Cluster, api: Api) -> Finding:
    """An old operator serves the group in other versions."""
    group = cluster.answers[f"/apis/{api.group}"]
    served = [str(one["version"]) for one in group.body.get("versions") or ()]
    if group.status != ABSENT and cluster.answers[api.root].status == ABSENT and served:
        observed, check = f"the group in {', '.join(served)} alone", "api-version"
    else:
        observed, check = "not served", "api"
    return Finding(
        check, f"{api.plural}.{api.group}", observed, f"{api.group}/{api.version}",
        f"install {api.comes_with}, its CustomResourceDefinitions first (server-side: they are large)",
    )  # fmt: skip
