"""Where a version is served: by the first engine, or, by strategy pool, by an engine of its own beside it."""

from __future__ import annotations

import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from serving.engine import await_idle
from serving.gateway.drain import drained
from serving.gateway.model import Split
from serving.gateway.state import Gateway
from tasks.base_model import resolve_base
from tasks.settings import Settings
from tasks.spec import Release
from tasks.stack.addresses import addresses, local_address
from tasks.stack.control import await_engine, default_engine, gateway_of, up
from tasks.stack.engine import Engine, EngineBusy
from tasks.stack.own_control import await_process, start_own, stop_own
from tasks.stack.own_engines import PLACES, OwnEngine, part_of, read_own
from tasks.stack.ports import remembered


@dataclass(frozen=True)
class Place:
    """An engine's address and its base model's folder. `own` None: the first engine."""

    url: str
    base: Path
    own: OwnEngine | None = None

    @property
    def part(self) -> str:
        return self.own.part if self.own else "vllm"


def engine_of(spec: Release, base: Path) -> Engine:
    """What the release asks of its engine."""
    serving = spec.serving
    return Engine(str(base), serving.max_model_len, serving.max_num_seqs, serving.max_loras, serving.max_lora_rank)


def split_of(settings: Settings, model: str) -> Split | None:
    return Gateway(settings.state / "gateway", "", "", "").splits().get(model)


def own_url(settings: Settings, model: str) -> str | None:
    """The address of the champion's own engine; None where the first one serves it."""
    split = split_of(settings, model)
    return split.stable_engine if split else None


def current_place(settings: Settings, model: str) -> Place:
    """Of the engine that serves the model's champion; the first one where there is none."""
    split = split_of(settings, model)
    for own in read_own(settings.state):
        if split and own.model == model and split.stable_engine == _address(settings, model, own.place):
            return Place(split.stable_engine, Path(own.engine.model), own)
    return Place(addresses(settings).vllm, Path(default_engine(settings).model))


def served_by(settings: Settings, place: Place) -> set[str]:
    """The engine's names of the adapters that have traffic there."""
    gateway = Gateway(settings.state / "gateway", "", "", default_engine(settings).served_name)
    url = place.url if place.own else None
    return {split.stable for split in gateway.splits().values() if split.stable_engine == url} - {gateway.base_model}


def covered(settings: Settings, place: Place, asked: Engine) -> bool:
    """Whether that engine can serve it as it runs. One at an address that was set is believed to."""
    return settings.vllm_url is not None or (place.own.engine if place.own else default_engine(settings)).covers(asked)


def own_engine(settings: Settings, model: str, engine: Engine, engine_model: str | None = None) -> OwnEngine:
    """In the place that stable has not; where `engine_model` is stable already, in its own. Raises EngineBusy."""
    if settings.vllm_url is not None:
        raise EngineBusy(
            f"strategy pool starts a second engine beside the local one, and LIFTLOCK_VLLM_URL is {settings.vllm_url}; "
            "required: the local stack's engine. Leave it out, or use strategy adapter"
        )
    split = split_of(settings, model)
    places = {_address(settings, model, place): place for place in PLACES}
    stable = places.get(split.stable_engine or "") if split else None
    if split and stable and split.stable == engine_model:
        return OwnEngine(model, stable, engine)
    return OwnEngine(model, next(place for place in PLACES if place != stable), engine)


def _address(settings: Settings, model: str, place: int) -> str:
    port = remembered(settings.state).get(part_of(model, place))
    return f"http://127.0.0.1:{port}" if port else part_of(model, place)


def start(settings: Settings, own: OwnEngine) -> Place:
    """It is not waited for. Raises EngineBusy where an unfinished rollout holds an engine with other limits there."""
    running = next((one for one in read_own(settings.state) if one.part == own.part), None)
    split = split_of(settings, own.model)
    held = split is not None and split.candidate_engine == _address(settings, own.model, own.place)
    if held and running is not None and running != own:
        raise EngineBusy(
            f"an unfinished rollout of {own.model} holds {own.part} with other limits; required: none. "
            f"Run `liftlock rollout abort {own.model}` first"
        )
    return Place(start_own(settings, own), Path(own.engine.model), own)


def await_place(settings: Settings, place: Place) -> None:
    """Raises PartNotReady."""
    if place.own:
        await_process(settings, place.part)
    else:
        await_engine(settings, addresses(settings))


def bring_up(settings: Settings, spec: Release, base: Path) -> OwnEngine | None:
    """The stack with its first engine, which is not waited for. The engine that the release has to start besides, where the
    first one would have to be restarted under its clients and the strategy allows it. Raises EngineBusy and what `up` raises.
    """
    engine = engine_of(spec, base)
    try:
        here = current_place(settings, spec.name) if remembered(settings.state) else None
        own = here is not None and here.own is not None and covered(settings, here, engine)
        up(settings, lambda _: None, None if own else engine, wait_for_engine=False)
        return None
    except EngineBusy:
        strategy, running = spec.delivery.strategy, default_engine(settings)
        asks = running.model == engine.model and running.max_lora_rank >= engine.max_lora_rank  # can be evaluated on it
        if strategy not in ("pool", "mirror", "auto") and not (strategy == "swap" and asks):
            raise
        if strategy == "swap":
            up(settings, lambda _: None, wait_for_engine=False)
            return None
    up(settings, lambda _: None, wait_for_engine=False)
    return own_engine(settings, spec.name, engine)


def asked_place(settings: Settings, spec: Release) -> Place:
    """Where a release asks its candidate before it has traffic: the champion's engine, or its own where that cannot serve it."""
    engine, place = engine_of(spec, resolve_base(spec.base_model, settings)), current_place(settings, spec.name)
    if covered(settings, place, engine) or spec.delivery.strategy == "swap":
        return place
    own = own_engine(settings, spec.name, engine)
    return Place(local_address(settings, own.part), Path(engine.model), own)


def end_unused(settings: Settings, model: str, seconds: float, kept: Collection[str] = ()) -> None:
    """Stop the model's own engines that get no traffic any more, after their requests ended or `seconds` passed."""
    split = split_of(settings, model)
    named = {*kept, *((split.stable_engine, split.candidate_engine) if split else ())}
    for own in read_own(settings.state):
        url = _address(settings, model, own.place)
        if own.model == model and url not in named:
            drain(settings, model, url, seconds)
            stop_own(settings, own)


def drain(settings: Settings, model: str, url: str, seconds: float) -> None:
    """Until the gateway and the engine itself have no request there any more, at most `seconds`."""
    deadline = time.monotonic() + seconds
    gateway = gateway_of(settings, addresses(settings), default_engine(settings))
    with suppress(httpx.HTTPError):  # a gateway that is down sends nothing
        drained(gateway, [(model, side, url) for side in ("stable", "candidate")], seconds)
    await_idle(url, deadline)
