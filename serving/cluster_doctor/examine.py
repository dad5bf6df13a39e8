"""What was read of a cluster → what is missing, each with its fix. START HERE. Pure.

    examine(read_cluster(api, expected("gke-l4")), expected("gke-l4"))  ->  Examined(findings, looked_at, unseen)

A cause is named once: what cannot work without it is not named beside it (see Hidden).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from serving.cluster_doctor.apis import check_apis, check_version
from serving.cluster_doctor.expected import Expected
from serving.cluster_doctor.gateways import check_gateway, check_name_policy
from serving.cluster_doctor.gitops import check_applications, check_project
from serving.cluster_doctor.model import Cluster, Finding, Hidden
from serving.cluster_doctor.namespaces import (
    check_accounts,
    check_limits,
    check_models_namespace,
    check_namespaces,
    check_quota,
    check_secrets,
    check_settings,
    check_store,
    check_volumes,
)
from serving.cluster_doctor.nodes import check_nodes, check_storage
from serving.cluster_doctor.parts import check_database, check_servers
from serving.cluster_doctor.policies import check_policies
from serving.cluster_doctor.queues import check_cluster_queue, check_flavor, check_local_queue, check_priorities
from serving.cluster_doctor.rights import check_rights

Check = Callable[[Cluster, Expected], Iterator[Finding]]
CHECKS: tuple[Check, ...] = (
    check_version, check_apis, check_rights, check_namespaces, check_models_namespace, check_quota, check_limits, check_accounts,
    check_local_queue, check_cluster_queue, check_flavor, check_priorities, check_store, check_secrets, check_settings,
    check_volumes, check_database, check_servers, check_gateway, check_name_policy, check_nodes, check_storage, check_project,
    check_applications, check_policies,
)  # fmt: skip


@dataclass(frozen=True)
class Examined:
    """`unseen`: checks that could not be made to the end, each for a reason that has a finding."""

    findings: tuple[Finding, ...]
    looked_at: int
    unseen: tuple[str, ...]

    @property
    def missing(self) -> tuple[Finding, ...]:
        return tuple(one for one in self.findings if one.level == "missing")


def examine(cluster: Cluster, wanted: Expected) -> Examined:
    findings: list[Finding] = []
    unseen: list[str] = []
    for check in CHECKS:
        try:
            findings.extend(check(cluster, wanted))
        except Hidden:
            unseen.append(check.__name__.removeprefix("check_").replace("_", " "))
    return Examined(tuple(findings), len(cluster.answers) + len(cluster.allowed), tuple(unseen))
