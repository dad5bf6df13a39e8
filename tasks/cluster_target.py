"""The delivery targets gitops and kubernetes with the parts that the settings name."""

from __future__ import annotations

import re
from collections.abc import Callable

from serving.delivery.apply_effect import ApplyEffect
from serving.delivery.argocd_wait import ArgoCd
from serving.delivery.effect import Effect
from serving.delivery.git_effect import GitEffect, Landing
from serving.delivery.github import github_of
from serving.delivery.kube_api import KubeApi
from serving.delivery.pull_request import PullRequests
from serving.delivery.push import Push
from serving.delivery.repository import Remote, Repository
from serving.delivery.story import story
from serving.delivery.target import ClusterTarget
from serving.manifests.model import Desired
from serving.rollout.kept import Rollouts
from tasks.settings import Settings
from tasks.spec import Release

MERGE_SECONDS = 24 * 3600.0
STEP_MARGIN_SECONDS = 300.0
"""For Argo CD, the scheduler, and a node that has to be started."""


class DeliveryUnset(ValueError):
    """A setting that the delivery target needs is missing."""


def target_of(
    settings: Settings, spec: Release, release: Desired | None, rollouts: Rollouts, tell: Callable[[str], None]
) -> ClusterTarget:
    """`release` None: only to read, to undo, or to bring an earlier version back. Raises DeliveryUnset, RemoteRefused."""
    effect = effect_of(settings, spec, release, tell)
    return ClusterTarget(effect, release, lambda: story(rollouts))


def effect_of(settings: Settings, spec: Release, release: Desired | None, tell: Callable[[str], None]) -> Effect:
    namespace, seconds = spec.delivery.cluster.namespace, step_seconds(spec, release)
    api = KubeApi()
    if spec.delivery.target == "kubernetes":
        return ApplyEffect(api, namespace, spec.name, seconds, lambda conflict: tell(f"  {conflict}"))
    remote = remote_of(settings)
    repository = Repository(settings.state / "platform" / re.sub(r"\W+", "-", remote.url), remote)
    argocd = ArgoCd(api, settings.argocd_application, settings.argocd_namespace, namespace, seconds)
    folder = f"{settings.platform_folder.strip('/')}/{spec.name}"
    return GitEffect(repository, folder, _landing(settings, spec, release, tell), argocd)


def remote_of(settings: Settings) -> Remote:
    """Raises DeliveryUnset, RemoteRefused."""
    if settings.platform_repository is None:
        raise DeliveryUnset(
            "target gitops commits to the platform's repository, and none is named; set LIFTLOCK_PLATFORM_REPOSITORY to its address"
        )
    token = settings.platform_token.get_secret_value() if settings.platform_token else ""
    return Remote(settings.platform_repository, settings.platform_branch, token, settings.platform_signing_key)


def _landing(settings: Settings, spec: Release, release: Desired | None, tell: Callable[[str], None]) -> Landing:
    """A branch for each release, named by the version that it brings."""
    if settings.platform_landing == "push":
        return Push()
    remote = remote_of(settings)
    version = release.candidate.version if release and release.candidate else "undo"
    branch = f"liftlock/{spec.name}/v{version}"
    return PullRequests(github_of(remote.url, remote.token), branch, MERGE_SECONDS, tell)


def step_seconds(spec: Release, release: Desired | None) -> float:
    """An engine may need all of its budget to start, and the one before it all of its time to drain."""
    startup = [member.startup_seconds for member in release.members] if release else []
    asked = spec.delivery.cluster
    return max([*startup, asked.startup_seconds or 0]) + asked.request_seconds + STEP_MARGIN_SECONDS
