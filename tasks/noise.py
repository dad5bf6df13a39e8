"""The noise floor of a suite: its baseline asked twice, in two orders; kept, and held against every margin since. Effect.

Batch composition and sampling change some answers of the same model. A margin that such flips alone can shift is refused
before anything is asked. Without a measurement nothing is refused.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import mlflow

from evals.endpoint import ModelNotServed, probe
from evals.evaluate import Side, Tools, ask_twice
from evals.gate import plan_of_suite
from evals.gate_policy import GatePolicy
from evals.lm_eval_runner import Setting
from evals.noise import NoiseFloor, noise_floor
from evals.prompt import load_prompt
from evals.suite import Suite, file_sha256, load_items, resolve_task
from serving.engine import load_adapter
from tasks.asked import CONCURRENCY, UNPINNED, Endpoint, promptfoo_of
from tasks.base_model import resolve_base
from tasks.gate_spec import GateSpec
from tasks.judge import policy_of
from tasks.ledger import alias_version
from tasks.progress import Progress
from tasks.spec import Release
from tasks.stage import digest_of
from tasks.whole_file import write_whole

BLOCK = 32  # of the second run, where the spec looks once: its batches must be other ones


class MarginBelowNoise(Exception):
    """The rule's margin is one that the suite's own noise can shift."""


def measure_noise(spec: Release, where: Endpoint) -> NoiseFloor:
    """Ask the baseline's items twice and keep what differs. Raises what evals.evaluate raises."""
    suite = Suite(spec.name, spec.gate.task, spec.gate.cases, load_prompt(spec.gate.prompt))
    test, base = spec.dataset.test, resolve_base(spec.base_model, where.settings)
    model = where.model or _baseline(spec, base)
    try:
        probe(where.base_url, model)
    except ModelNotServed:  # an adapter that the engine finds by its name, once it is asked
        load_adapter(where.base_url.removesuffix("/v1"), model)
    policy = policy_of(spec, None)
    again = replace(policy, block=policy.block or BLOCK, slices=(), floor=0.0, rule="superior", margin=0.0)
    plan = plan_of_suite(load_items(test), resolve_task(suite.task_yaml, test, suite.prompt).slices, again)
    with Progress(where.console, "noise") as progress:
        first, second = ask_twice(
            Side(suite, model, UNPINNED, where.base_url, base),
            test,
            Tools(promptfoo_of(where.settings), where.state / "noise" / "work"),
            Setting(metric=spec.gate.metric, num_concurrent=CONCURRENCY),
            plan,
            lambda tool, done, total: progress.update(done, total, tool),
        )
    floor = noise_floor(first, second, spec.gate.alpha)
    file = _file(where.state, spec.gate, test)
    write_whole(file, json.dumps(asdict(floor)))
    return floor


def check_spec(spec: Release, state: Path) -> None:
    """Before the training: an evaluation from the cache would not look. Raises MarginBelowNoise."""
    version = None if spec.gate.baseline == "base" else alias_version(mlflow.MlflowClient(), spec.name, "champion")
    check_margin(state, spec.gate, spec.dataset.test, policy_of(spec, version))


def check_margin(state: Path, gate: GateSpec, test: Path, policy: GatePolicy) -> None:
    """Raises MarginBelowNoise where a measurement of this suite says so. A margin of 0 asks for more than noise by itself."""
    file = _file(state, gate, test)
    if policy.margin == 0 or not file.exists():
        return
    found = json.loads(file.read_text())
    floor = NoiseFloor(**{**found, "flipped": tuple(found["flipped"])})
    if not floor.allows(policy.margin):
        raise MarginBelowNoise(
            f"gate.margin is {policy.margin:g}; {len(floor.flipped)} of {floor.items} items differed between two runs of "
            f"one model, which can shift a mean by {floor.smallest_margin:.4f}: take a wider margin or more items, or "
            "measure again with `liftlock gate --aa SPEC`"
        )


def _file(state: Path, gate: GateSpec, test: Path) -> Path:
    """By what is asked and how it is scored; the model may be another one since."""
    prompt = load_prompt(gate.prompt)
    key = digest_of("noise 1", resolve_task(gate.task, test, prompt).sha256, file_sha256(test), gate.metric)[:32]
    return state / "noise" / f"{key}.json"


def _baseline(spec: Release, base: Path) -> str:
    """The champion's name at the engine, or the base's."""
    version = None if spec.gate.baseline == "base" else alias_version(mlflow.MlflowClient(), spec.name, "champion")
    if version is None:
        return base.name.lower()
    return str(mlflow.MlflowClient().get_model_version(spec.name, version).tags["liftlock.engine_model"])
