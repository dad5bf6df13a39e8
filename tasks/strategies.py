"""By which strategy a release is rolled out here, the engine that its candidate is served by, and what gives it weight."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from serving.gateway.model import Split
from serving.rollout.ask import Messages
from serving.rollout.comparison import Comparison
from serving.rollout.golden import Golden
from serving.rollout.local import LocalTarget
from serving.rollout.mirror import Drawn, Shadow
from serving.rollout.strategy import Choice, Room, Strategy, choose
from tasks.artifacts import Dataset, FitReport
from tasks.base_model import resolve_base
from tasks.live_gate import live_comparison
from tasks.place import Place, covered, current_place, engine_of, own_engine, served_by, split_of, start
from tasks.run import current_run
from tasks.settings import Settings
from tasks.spec import Release
from tasks.stack.addresses import addresses
from tasks.stack.control import default_engine, gateway_of
from tasks.stack.engine import EngineBusy
from tasks.stack.own_engines import read_own
from tasks.swap import swap_target, told, unfinished

ALL = 100  # percent of clients' requests that a shadow gets a copy of


class StrategyMissing(Exception):
    """The canary that the memory allows cannot be done by a release."""


def placed(settings: Settings, fit: FitReport, spec: Release, engine_model: str) -> tuple[Choice, Place]:
    """The strategy, and the engine that serves the candidate; one of its own is started. Raises StrategyMissing, EngineBusy."""
    engine = engine_of(spec, resolve_base(spec.base_model, settings))
    here = current_place(settings, spec.name)
    enough = covered(settings, here, engine)
    if not enough:
        _refuse_itself(settings, spec.name, engine_model, here)
    fits_in = enough and not unfinished(settings, spec.name)
    own = own_engine(settings, spec.name, engine, engine_model) if not fits_in and settings.vllm_url is None else None
    if own and spec.delivery.strategy in ("auto", "mirror") and own in read_own(settings.state):
        return Choice("pool", "an engine of its own runs beside the first one already"), start(settings, own)
    choice = strategy_of(fit, len(served_by(settings, here) - {engine_model}), spec, fits_in)
    if choice.strategy == "swap" and here.own:
        raise StrategyMissing(
            f"the champion of {spec.name} has an engine of its own ({here.part}); required for swap: the first engine. Say `strategy: pool`"
        )
    if choice.strategy in ("adapter", "swap"):
        return choice, here
    return choice, start(settings, own_engine(settings, spec.name, engine, engine_model))


def _refuse_itself(settings: Settings, model: str, engine_model: str, here: Place) -> None:
    """A version that has all the traffic is no candidate, so nothing would bring it to another engine. Raises EngineBusy."""
    split = split_of(settings, model)
    if split is None or split.stable != engine_model:
        return
    next_step = (
        "Release a new version"
        if here.own
        else "Run `liftlock down`, then this release again: the engine then starts with what it asks for"
    )
    raise EngineBusy(
        f"{engine_model} serves {model} already, and {here.part} runs with less than the release asks for (see `serving`); required: "
        f"another version, because one is not rolled out against itself. {next_step}"
    )


def strategy_of(fit: FitReport, served: int, spec: Release, fits_in: bool = True) -> Choice:
    """What the spec asks for; with auto, what the memory allows. `served` adapters hold slots; `fits_in` says whether the
    running engine can serve the release at all.
    """
    asked = spec.delivery.strategy
    if asked == "swap" and fits_in:
        return Choice("adapter", "the spec asks for swap, and the running engine serves the release as it is")
    if asked != "auto" and asked != "mirror":
        return Choice(asked, "the spec asks for it")
    used = fit.usable_bytes - fit.headroom_bytes
    choice = choose(Room(fits_in, spec.serving.max_loras, served, used, fit.usable_bytes))
    if asked == "mirror":
        strategy: Strategy = "adapter" if fits_in else "pool"
        return Choice(strategy, f"the spec asks for copies of clients' requests first; {choice.why}")
    if choice.strategy == "swap" and fits_in:
        return Choice("adapter", f"{choice.why}; so the engine loads adapters in turn, without a gap")
    return choice


def way_of(spec: Release, choice: Choice) -> str:
    """For people, while it goes on."""
    sticky = f"; sticky by {spec.delivery.sticky}" if spec.delivery.sticky else ""
    return f"{choice.strategy}: {choice.why}{sticky}"


def target_of(settings: Settings, spec: Release, place: Place, check: Callable[[], None] | None) -> LocalTarget:
    """`check` is what a swapped engine must pass; None: the engines stay. Raises EngineBusy."""
    gateway, drain = gateway_of(settings, addresses(settings), default_engine(settings)), spec.delivery.drain_seconds
    if check:
        current_run().console.print(f"  swap: {told(settings, gateway, drain)}", highlight=False, markup=False)
        asked, runs = engine_of(spec, resolve_base(spec.base_model, settings)), default_engine(settings)
        new = runs.widened(asked) if runs.model == asked.model else asked
        return swap_target(settings, spec.name, gateway, new, drain, check)
    mirror = ALL if spec.delivery.strategy == "mirror" else 0
    return LocalTarget(gateway, settings.adapters, place.url if place.own else None, spec.delivery.sticky, mirror)


def shadow_of(
    settings: Settings,
    target: LocalTarget,
    spec: Release,
    engine_model: str,
    place: Place,
    dataset: Dataset,
    prompts: Sequence[Messages],
    golden: Sequence[Golden],
) -> Shadow | None:
    """What a step of shadow traffic is judged by; None where the spec asks for none."""
    if not target.mirror:
        return None
    gateway, name = target.gateway, spec.name
    split = gateway.splits().get(name) or Split(name, gateway.base_model)
    stable = (split.stable, split.stable_engine or gateway.engine_url)
    candidate = (engine_model, target.candidate_engine or gateway.engine_url)
    drawn = Drawn(stable, candidate, prompts, golden)
    compare = live_comparison(
        settings, spec, dataset, (engine_model, place), (split.stable, current_place(settings, name))
    )
    return Shadow(drawn, lambda: gateway.counters(name, "mirror", target.candidate_engine), Comparison(compare))
