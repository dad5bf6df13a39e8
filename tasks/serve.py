"""serve: the champions of many models on one engine. Fit decides the slots; each adapter is placed from its verified modelcar,
loaded, and must answer its golden prompts as on its release's record before the gateway sends it a client.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import mlflow

from serving.engine import AdapterNotLoaded, load_adapter, unload_adapter
from serving.fit import EngineFlags, FitReport
from serving.fit import preflight as estimate
from serving.fit.flags import padded_rank
from serving.fit.slots import Slots, choose_slots
from serving.gateway.state import Gateway
from serving.rollout.golden import Golden, GoldenUnanswered, compare
from tasks.base_model import resolve_base
from tasks.build_and_push import engine_model_of
from tasks.champion_report import NoChampion
from tasks.golden import golden_of
from tasks.ledger import alias_version
from tasks.place import current_place
from tasks.preflight import DoesNotFit
from tasks.promotion.recall import Recalled, recall
from tasks.settings import Settings
from tasks.setup import VLLM_VERSION
from tasks.spec import Release
from tasks.stack.addresses import addresses
from tasks.stack.control import default_engine, gateway_of, up
from tasks.stack.engine import Engine
from tasks.verify_modelcar import place_verified

CANDIDATE = 1  # a canary by strategy adapter needs a slot beside all champions
State = Literal["served", "no record", "refused"]


class ProbeRefused(Exception):
    """An adapter does not answer as its release did."""


class BasesDiffer(Exception):
    """One engine has one base model."""


@dataclass(frozen=True)
class Served:
    """One model: what its probe said. `no record`: it was released before golden answers were kept, and is served."""

    model: str
    version: str
    engine_model: str
    state: State
    said: str


def champions(client: mlflow.MlflowClient, models: Sequence[str]) -> list[Recalled]:
    """Of the named models, or of all that have one. Raises NoChampion, EvidenceRefused, MlflowException."""
    names = models or [one.name for one in client.search_registered_models()]
    found = [(name, alias_version(client, name, "champion")) for name in names]
    missing = [name for name, version in found if version is None]
    if models and missing:
        raise NoChampion(f"{missing[0]} has no champion; release one, or leave the name out")
    if not any(version for _, version in found):
        raise NoChampion("no model has a champion; `liftlock release SPEC` makes one")
    return [recall(client, name, version) for name, version in found if version is not None]


def on_the_first_engine(settings: Settings, specs: Sequence[Release]) -> list[Release]:
    """Without the models that have an engine of their own."""
    return [spec for spec in specs if current_place(settings, spec.name).own is None]


def base_of(specs: Sequence[Release], settings: Settings) -> Path:
    """Raises BasesDiffer, BaseModelRefused."""
    bases = {resolve_base(spec.base_model, settings): spec.name for spec in specs}
    if len(bases) > 1:
        told = ", ".join(f"{name} has {base.name}" for base, name in bases.items())
        raise BasesDiffer(f"one engine serves one base model, and {told}; name the models of one base")
    return next(iter(bases))


def slots_of(base: Path, specs: Sequence[Release], gpu: str | None, concurrency: float, most: int | None) -> Slots:
    """The widest that any of them asks for, with as many slots as fit, one of them for a candidate. Raises what the estimate
    raises.
    """
    serving = [spec.serving for spec in specs]
    flags = EngineFlags(
        gpu_memory_utilization=min(one.gpu_memory_utilization for one in serving),
        max_model_len=max(one.max_model_len for one in serving),
        max_num_seqs=max(one.max_num_seqs for one in serving),
        max_lora_rank=padded_rank(max(one.max_lora_rank for one in serving)),
    )

    def report(slots: int) -> FitReport:
        asked = replace(flags, max_loras=slots)
        return estimate(base, (), gpu=gpu or serving[0].gpu, flags=asked, engine_version=VLLM_VERSION)

    wanted = len(specs) + CANDIDATE
    return choose_slots(report, min(wanted, most or wanted), flags.max_lora_rank or 0, concurrency)


def engine_with(base: Path, specs: Sequence[Release], slots: Slots) -> Engine:
    """A slot more than adapters stays free for a candidate where all of them have one. Raises DoesNotFit."""
    if not slots.max_loras:
        raise DoesNotFit(f"not one slot of rank {slots.max_lora_rank} fits: {slots.reason}", slots.report)
    serving = [spec.serving for spec in specs]
    by_default = slots.adapters <= min(slots.max_cpu_loras, 4 * slots.max_loras)
    return Engine(
        str(base),
        max(one.max_model_len for one in serving),
        max(one.max_num_seqs for one in serving),
        slots.max_loras,
        slots.max_lora_rank,
        0 if by_default else slots.max_cpu_loras,
    )


def bring_up(settings: Settings, engine: Engine, say: Callable[[str], None]) -> None:
    """Raises EngineBusy where the engine runs with less and serves clients."""
    up(settings, say, engine)


def serve_one(settings: Settings, client: mlflow.MlflowClient, recalled: Recalled) -> Served:
    """Placed, loaded, probed, and behind the gateway. Raises VerificationFailed and what placing raises."""
    version, name = recalled.version, recalled.version.name
    engine_model = engine_model_of(name, recalled.modelcar)
    place = current_place(settings, name)
    place_verified(version, recalled.modelcar, settings.adapters / engine_model, place.base)
    gateway = gateway_of(settings, addresses(settings), default_engine(settings))
    golden = golden_of(client, name, version.version)
    state, said = admit(gateway, place.url, name, engine_model, golden)
    return Served(name, version.version, engine_model, state, said)


def admit(
    gateway: Gateway, engine_url: str, model: str, engine_model: str, golden: Sequence[Golden]
) -> tuple[State, str]:
    """Load and probe; a good one gets the model's traffic. A bad one is unloaded, unless clients are on it already: then it
    stays, and whoever runs the command decides.
    """
    split = gateway.splits().get(model)
    try:
        load_adapter(engine_url, engine_model)
        compared = compare(engine_url, engine_model, golden)
    except (AdapterNotLoaded, GoldenUnanswered) as error:
        return "refused", str(error)
    if not compared.good:
        if split and engine_model in (split.stable, split.candidate):
            return "refused", f"{compared.said}. It has traffic: run `liftlock rollback {model}`"
        unload_adapter(engine_url, engine_model)
        return "refused", f"{compared.said}. It is not served"
    if split is None or (split.stable != engine_model and split.candidate is None):
        gateway.set_stable(model, engine_model, None if engine_url == gateway.engine_url else engine_url)
    return ("served", compared.said) if golden else ("no record", "released before golden answers were kept")
