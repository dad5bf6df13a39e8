"""Admission: what the labels of a namespace ask for must be enforced by something. Policies are off by default. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from serving.cluster_doctor.expected import MODELS, PIPELINE, Expected
from serving.cluster_doctor.model import Cluster, Finding, Object
from serving.cluster_doctor.paths import BINDINGS, POLICIES, namespace

PREFIX = "liftlock.dev/"
# label of a namespace → the policy that it asks for
ASKED = {
    f"{PREFIX}gpu-fit": "liftlock-gpu-fit",
    f"{PREFIX}pinned-images": "liftlock-pinned-images",
    f"{PREFIX}signed-modelcar": "liftlock-signed-modelcar",
}


def check_policies(cluster: Cluster, _: Expected) -> Iterator[Finding]:
    there = {one["metadata"]["name"] for one in cluster.items(POLICIES)}
    bound = _bound(cluster.items(BINDINGS))
    for space in (PIPELINE, MODELS):
        labels = ((cluster.get(namespace(space)) or {}).get("metadata") or {}).get("labels") or {}
        for label, policy in ASKED.items():
            if labels.get(label) == "required":
                yield from _policy(space, label, policy, policy in there, bound.get(policy))


def _bound(bindings: tuple[Object, ...]) -> dict[str, set[str]]:
    actions: dict[str, set[str]] = {}
    for one in bindings:
        actions.setdefault(one["spec"]["policyName"], set()).update(one["spec"]["validationActions"])
    return actions


def _policy(space: str, label: str, policy: str, there: bool, actions: set[str] | None) -> Iterator[Finding]:
    if not there or actions is None:
        yield Finding(
            "policy", policy, "not there" if not there else "there, and bound to nothing", f"enforced: {space} has the label {label}",
            "kubectl apply -k deploy/policies/audit/admission (Kyverno's twin is not looked at)",
        )  # fmt: skip
    elif "Deny" not in actions:
        yield Finding(
            "policy-audits", policy, f"{', '.join(sorted(actions))}: it tells and refuses nothing", "Deny, in the end",
            "kubectl apply -k deploy/policies/enforce/admission, when the audit log is quiet", "note",
        )  # fmt: skip
