"""500 random changes to a coherent chain: the check finds what breaks in a discrete-event simulation, and nothing else."""

# ruff: noqa: E501 - a change is one line
from __future__ import annotations

import copy
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from serving.coherence.chains import chains
from serving.coherence.check import findings
from serving.coherence.objects import Inventory, add
from serving.coherence.worst import amplification, silent_seconds
from tests.fix_coherence import IDLE, Handle, coherent
from tests.fix_coherence_sim import Simulation, broken

CHANGES = 500
PLACES: dict[str, Callable[[Handle, random.Random], object]] = {
    "client total": lambda h, r: h.client.update(total=f"{time(r)}s"),
    "client idle": lambda h, r: h.client.update(idle=f"{time(r)}s"),
    "client retries": lambda h, r: h.client.update(retries=r.randint(0, 4)),
    "edge request": lambda h, r: h.outer.update(request=f"{time(r)}s"),
    "router timeout": lambda h, r: h.router.update(timeout=time(r)),
    "router stream_timeout": lambda h, r: h.router.update(stream_timeout=time(r)),
    "router retries": lambda h, r: h.router.update(num_retries=r.randint(0, 4)),
    "route request": lambda h, r: h.timeouts.update(request=f"{time(r)}s"),
    "route backendRequest": lambda h, r: h.timeouts.update(backendRequest=f"{time(r)}s"),
    "route retries": lambda h, r: h.rule.update(retry={"codes": [503], "attempts": r.randint(1, 3), "backoff": "1s"}),
    "engine grace": lambda h, r: h.pod.update(terminationGracePeriodSeconds=time(r)),
    "engine preStop": lambda h, r: h.vllm.update(lifecycle=r.choice([{}, {"preStop": {"sleep": {"seconds": time(r)}}}, {"preStop": {"exec": {"command": IDLE}}}])),
    "engine shutdown": lambda h, r: h.vllm.update(args=[*h.vllm["args"], f"--shutdown-timeout={time(r)}"]),
    "router grace": lambda h, r: h.values.update(terminationGracePeriodSeconds=time(r)),
    "router cancels": lambda h, r: h.config.update(general_settings={"cancel_on_disconnect": r.choice([True, False])}),
    "client modes": lambda h, r: h.client.update(modes=r.choice(["stream", "whole", "both"])),
    "router preStop": lambda h, r: h.values.update(lifecycle=r.choice([{}, {"preStop": {"sleep": {"seconds": r.randint(0, 60)}}}])),
}  # fmt: skip


def time(draw: random.Random) -> int:
    """From 10 s to an hour, as often between 10 and 60 as between 600 and 3,600."""
    return round(10 ** draw.uniform(1, 3.55))


def inventory(handle: Handle) -> Inventory:
    found = Inventory()
    for name, documents in handle.files.items():
        for document in documents:
            add(found, document, name)
    return found


def test_the_coherent_chain_holds_in_the_simulation() -> None:
    (chain,) = chains(inventory(Handle(copy.deepcopy(coherent()))))
    assert broken(chain) == [] and findings([chain]) == []


def test_every_change_that_breaks_something_is_found_and_no_harmless_one() -> None:
    missed, alarms, verdicts = [], [], Counter[str]()
    for seed in range(CHANGES):
        draw, handle = random.Random(seed), Handle(copy.deepcopy(coherent()))
        named = draw.sample(list(PLACES), draw.choice([1, 1, 2]))
        for name in named:
            PLACES[name](handle, draw)
        (chain,) = chains(inventory(handle))
        said, seen = findings([chain]), broken(chain)
        verdicts["broken" if seen else "harmless"] += 1
        if seen and not said:
            missed.append((seed, named, seen))
        if said and not seen:
            alarms.append((seed, named, [f"{each.rule}: {each.message}" for each in said]))
    assert missed == [] and alarms == []
    assert min(verdicts["broken"], verdicts["harmless"]) > CHANGES / 5, verdicts


def test_the_worst_case_agrees_with_the_simulation() -> None:
    """Time and requests on a silent engine, and requests on one that refuses, on 200 changed chains."""
    for seed in range(200):
        draw, handle = random.Random(10_000 + seed), Handle(copy.deepcopy(coherent()))
        for name in draw.sample(list(PLACES)[:10], 3):
            PLACES[name](handle, draw)
        (chain,) = chains(inventory(handle))
        for mode in chain.modes:
            assert abs(Simulation(chain, mode, "silent").run().ended - silent_seconds(chain.hops, mode)) < 1e-6
        seen = Simulation(chain, True, "refuses").run()
        assert len(seen.engine_starts) <= amplification(chain.hops)
        assert seen.timers or len(seen.engine_starts) == amplification(chain.hops)


def test_the_simulation_is_no_wrapper_of_the_check() -> None:
    imported = (Path(__file__).parent / "fix_coherence_sim.py").read_text()
    assert "worst" not in imported and "rules_" not in imported
