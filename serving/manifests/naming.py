"""Names, labels and annotations of what is rendered. Pure."""

from __future__ import annotations

import json
from typing import Any

from serving.manifests.model import Desired, Form, Member

MANAGED_BY = "liftlock"
EVIDENCE = "liftlock.dev/evidence"
GAP = "liftlock.dev/gap"
SIGNATURE = "liftlock.dev/modelcar-signature"  # a line `IMAGE@sha256:… sha256:…` for each modelcar (deploy/policies/signed-modelcar)
COMPONENT = "app.kubernetes.io/component"
EVALUATION = "evaluation"  # component of the pods that may ask an engine directly
PORTS: dict[Form, int] = {"inferenceservice": 8080, "deployment": 8000, "llminferenceservice": 8000}


def selector(name: str) -> dict[str, str]:
    """Labels of a member's pods, and of no others."""
    return {"app.kubernetes.io/name": name}


def labels(desired: Desired, name: str, component: str) -> dict[str, str]:
    return {
        **selector(name),
        COMPONENT: component,
        "app.kubernetes.io/part-of": desired.model,
        "app.kubernetes.io/managed-by": MANAGED_BY,
    }


def metadata(
    desired: Desired, name: str, component: str, *, of: str | None = None, annotations: dict[str, str] | None = None
) -> dict[str, Any]:
    """`of`: the member that the object belongs to, where its name is another."""
    made: dict[str, Any] = {
        "name": name,
        "namespace": desired.namespace,
        "labels": labels(desired, of or name, component),
    }
    return {**made, "annotations": annotations} if annotations else made


def evidence(*members: Member) -> dict[str, str]:
    """What was proven of each version, as one annotation of canonical JSON."""
    said = {f"v{member.version}": {"modelcar": member.modelcar, **dict(member.evidence)} for member in members}
    return {EVIDENCE: json.dumps(said, sort_keys=True, separators=(",", ":"))}
