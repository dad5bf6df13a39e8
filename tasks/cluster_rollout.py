"""A version onto the cluster: the same steps and analysis as on this machine, by commits or by server-side apply."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import mlflow

from serving.delivery.drawn import DrawnTraffic, await_answer
from serving.delivery.engine_counters import EngineCounters
from serving.delivery.steps import word_of
from serving.delivery.target import NOTHING, ClusterTarget
from serving.manifests.model import Desired
from serving.manifests.render import notes, objects
from serving.modelcar import Modelcar
from serving.rollout.ask import Messages
from serving.rollout.model import Step
from serving.rollout.plan import Plan
from serving.rollout.steps import roll_out
from tasks.analysis_policy import policy_of
from tasks.artifacts import Dataset, ModelVersion, Rollout
from tasks.cluster import hold_to_cluster
from tasks.cluster_target import DeliveryUnset, target_of
from tasks.coherence import hold_manifests, tell_manifests
from tasks.delivered import keep_delivery
from tasks.evaluate import prompts_of
from tasks.manifests import base_of, desired_of, member_of, platform_of
from tasks.rollouts import rollouts_of
from tasks.run import current_run
from tasks.settings import Settings
from tasks.spec import Release

PROMPTS = 64
ROUTE_SECONDS = 60.0  # from a route that is accepted to a gateway that follows it
Say = Callable[[str], None]


@dataclass(frozen=True)
class Delivery:
    """A version with the place that it goes to. `word` is what the rollout calls it."""

    target: ClusterTarget
    release: Desired
    reference: str
    word: str
    gateway: str
    headers: dict[str, str]


def delivery_of(settings: Settings, spec: Release, version: ModelVersion, say: Say) -> Delivery:
    """Raises VersionNotDeliverable, PlatformInvalid, DesiredInvalid, DeliveryUnset, RemoteRefused."""
    client = mlflow.MlflowClient()
    registered = client.get_model_version(version.name, version.version)
    member = member_of(client, registered, spec, base_of(spec, settings))
    # LiteLLM's values are `liftlock render`'s: Helm replaces lists, and the other entries are not known here.
    release = replace(desired_of(spec, platform_of(settings), None, member), alias=None)
    gateway, headers = gateway_of_cluster(settings)
    made = target_of(settings, spec, release, rollouts_of(settings, spec.name), say)
    target = replace(made, answers=lambda word: await_answer(gateway, word, headers, ROUTE_SECONDS))
    return Delivery(target, release, member.modelcar, word_of(release, member), gateway, headers)


def gateway_of_cluster(settings: Settings) -> tuple[str, dict[str, str]]:
    """Its address without /v1, and the headers of the release's own requests. Raises DeliveryUnset."""
    if settings.cluster_gateway_url is None:
        raise DeliveryUnset(
            "a canary on a cluster is asked through its gateway, and no address is known; set LIFTLOCK_CLUSTER_GATEWAY_URL, "
            "e.g. http://inference-gateway.inference.svc.cluster.local"
        )
    key = settings.api_key.get_secret_value() if settings.api_key else ""
    return settings.cluster_gateway_url.rstrip("/"), {"authorization": f"Bearer {key}"} if key else {}


def roll_out_on_cluster(
    settings: Settings, spec: Release, version: ModelVersion, modelcar: Modelcar, dataset: Dataset
) -> Rollout:
    """Of a modelcar that was verified. Raises ChainIncoherent, NotSchedulable, Blocked, and what delivery_of raises."""
    run = current_run()

    def say(text: str) -> None:
        run.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def on_step(step: Step) -> None:
        total = step.candidate.requests + step.stable.requests
        say(f"  canary at {step.weight} %: {step.candidate.requests} of {total} requests; {step.reason}")

    delivery = delivery_of(settings, spec, version, say)
    keep_delivery(settings, spec)
    stable = delivery.target.stable(spec.name)
    if stable != delivery.word:
        placed = delivery.target.placed()
        hold_manifests(objects(placed))
        for said in (hold_to_cluster(placed), *notes(placed)):
            say(f"  {said}")
    prompts = prompts_of(spec, dataset.split("test").path)[:PROMPTS]
    plan = plan_of(spec, delivery, prompts, first=stable == NOTHING)
    traffic = DrawnTraffic(delivery.gateway, stable, delivery.word, prompts, delivery.headers)
    clients = counters_of(settings, spec, delivery) if stable != NOTHING else None
    done = roll_out(rollouts_of(settings, spec.name), plan, delivery.target, traffic, on_step, clients)
    return replace(
        done,
        reference=modelcar.reference,
        strategy=delivery.release.strategy,
        why=f"the spec's, for target {spec.delivery.target}",
    )


def counters_of(settings: Settings, spec: Release, delivery: Delivery) -> EngineCounters | None:
    """Two adapters on one engine share its counters, so only a pool's can be told apart."""
    if settings.prometheus_url is None or delivery.release.strategy != "pool":
        return None
    return EngineCounters(settings.prometheus_url.rstrip("/"), spec.delivery.cluster.namespace)


def plan_of(spec: Release, delivery: Delivery, prompts: Sequence[Messages], *, first: bool) -> Plan:
    """A first release has nothing to share the traffic with, and a swap has one engine at a time."""
    asked = spec.delivery
    weights = (100,) if first or delivery.release.strategy == "swap" else asked.steps
    return Plan(
        model=spec.name,
        engine_model=delivery.word,
        reference=delivery.reference,
        engine_url=delivery.gateway,
        prompts=prompts,
        weights=weights,
        warmup_requests=asked.warmup_requests,
        policy=replace(policy_of(asked), steps=len(weights)),
        hold_seconds=asked.hold_seconds,
        drain_seconds=asked.drain_seconds,
        warmup_budget=asked.warmup_first_token_seconds,
        target=asked.target,
        headers=delivery.headers,
    )


def say_aside(text: str) -> None:
    """To standard error: standard output may be one document."""
    print(text, file=sys.stderr)


def serve_on_cluster(settings: Settings, spec: Release, version: ModelVersion, say: Say = say_aside) -> None:
    """A version that was champion before gets all of the traffic, without a canary. It may be repeated. Incoherent manifests are told
    and stop nothing. Raises what delivery_of raises, NotSchedulable, Blocked, DeliveryFailed.
    """
    delivery = delivery_of(settings, spec, version, say)
    keep_delivery(settings, spec)
    target, name = delivery.target, spec.name
    if target.stable(name) == delivery.word:
        return
    placed = target.placed()
    hold_to_cluster(placed)
    tell_manifests(objects(placed), say)
    target.place(name, delivery.word)
    target.weigh(name, delivery.word, 100)
    target.promote(name, delivery.word)
