"""deliver: a registered version to the cluster that the settings name, with the delivery of the release.yaml at hand."""

from __future__ import annotations

import mlflow

from serving.manifests.render import objects
from tasks.cluster_rollout import delivery_of
from tasks.coherence import hold_manifests
from tasks.promote import Promoted, promote_version
from tasks.promotion.recall import find_version
from tasks.register import read_version
from tasks.settings import get_settings
from tasks.spec import DeliverySpec, Release


class TargetInvalid(ValueError):
    """The delivery target is not a cluster's."""


def wanted_delivery(release: Release, target: str | None) -> DeliverySpec:
    """Raises TargetInvalid."""
    delivery = release.delivery.model_copy(update={"target": target} if target else {})
    if delivery.target == "local":
        raise TargetInvalid(
            f"delivery.target of {release.name} is local, which `liftlock release` and `promote` do; say --target gitops or kubernetes"
        )
    return delivery


def deliver_version(model: str, version: str | None, delivery: DeliverySpec, reason: str) -> Promoted:
    """Raises what promote_version raises, DeliveryUnset, VersionNotDeliverable, NotSchedulable, Blocked."""
    return promote_version(model, _number(model, version), "champion", expected=None, reason=reason, delivery=delivery)


def preview(release: Release, version: str | None, delivery: DeliverySpec) -> str:
    """The diff of the first step; empty where the version has all of the traffic. It asks the registry and the place alone.

    Raises ChainIncoherent, as the delivery would.
    """
    spec = release.model_copy(update={"delivery": delivery})
    number = _number(spec.name, version)
    made = delivery_of(get_settings(), spec, read_version(mlflow.MlflowClient(), spec.name, number), lambda _: None)
    if made.target.stable(spec.name) == made.word:
        return ""
    hold_manifests(objects(made.target.placed()))
    return made.target.preview(spec.name)


def _number(model: str, version: str | None) -> str:
    """Raises NoSuchVersion."""
    return find_version(mlflow.MlflowClient(), f"{model}/{version}" if version else f"{model}@staging")[1]
