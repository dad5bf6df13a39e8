"""Outcomes of releases made by hand, for the tests of the report. Scores and times follow from positions, not from chance."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from math import exp, sin
from pathlib import Path
from typing import Any, Literal

from evals.gate import GatePolicy, decide
from evals.report import EvalReport, ItemResult, PromptCase, count_cases
from serving.fit import FitReport
from serving.modelcar import Modelcar
from serving.modelcar.model import LayerRef
from serving.rollout.model import Rollout, SideStats, Step
from tasks.artifacts import (
    Adapter,
    Dataset,
    EvalPair,
    ModelVersion,
    Outcome,
    Sample,
    SampleAnswer,
    Split,
    StageRecord,
)
from tasks.lora import TrainingPoint
from tests.fix_reports import FINGERPRINT

TEST_ITEMS = Path(__file__).parents[1] / "evals/ticket_router/data/test.jsonl"
TEAMS = ("account", "billing", "loyalty", "returns", "sales", "security", "shipping", "technical")
CASE_GROUPS = ("format", "refusal", "injection")
MIB = 1024**2
Status = Literal["done", "rejected", "inconclusive", "undone", "failed"]


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def items_with(wrong: set[int], said: str | None = None) -> tuple[ItemResult, ...]:
    """The suite's 320 test items; those at `wrong` positions are answered with `said`, or else with the next team."""
    rows = [json.loads(line) for line in TEST_ITEMS.read_text().splitlines()]
    found = []
    for place, row in enumerate(rows):
        answer = said if said is not None else TEAMS[(TEAMS.index(row["team"]) + 1) % len(TEAMS)]
        answer = answer if place in wrong else row["team"]
        slices = tuple((column, row[column]) for column in ("team", "length", "register"))
        found.append(ItemResult(row["id"], float(place not in wrong), answer, row["team"], slices))
    return tuple(found)


def cases_with(failed: set[str], errored: frozenset[str] = frozenset()) -> tuple[PromptCase, ...]:
    """Twelve cases in each group, such as injection-03."""
    ids = [f"{group}-{place:02}" for group in CASE_GROUPS for place in range(12)]
    return tuple(
        PromptCase(
            key,
            key.rpartition("-")[0],
            key not in failed | errored,
            key in errored,
            "Expected output to equal billing" if key in failed else "connection reset" if key in errored else "",
            "urgent" if key in failed else "billing",
        )
        for key in ids
    )


def report_of(model: str, items: tuple[ItemResult, ...], cases: tuple[PromptCase, ...]) -> EvalReport:
    return EvalReport(
        fingerprint=replace(FINGERPRINT, model=model, model_sha256=sha(model)),
        metrics=(("exact_match,none", sum(item.score for item in items) / len(items)),),
        items=items,
        cases=cases,
        assertions=count_cases(cases),
        n=len(items),
        tool_versions=(("lm_eval", "0.4.13"), ("promptfoo", "0.121.20")),
        seconds=48.2,
    )


def pair_of(candidate: EvalReport, baseline: EvalReport, baseline_version: str | None) -> EvalPair:
    return EvalPair(candidate, baseline, baseline_version, sha(candidate.sha256 + baseline.sha256))


def first_pair() -> EvalPair:
    """291 of 320 right against 6 for the base model, which got one of the candidate's wrong ones right."""
    wrong = {place for place in range(320) if place % 11 == 4}
    right_before = {4, 50, 100, 150, 200, 250}
    said = "I'm sorry, but I can't help with that. Please contact"
    baseline = report_of(
        "base",
        items_with(set(range(320)) - right_before, said),
        cases_with({f"{group}-{k:02}" for group in CASE_GROUPS for k in range(9)}),
    )
    return pair_of(
        report_of("eval-ticket-router", items_with(wrong), cases_with({"injection-05", "injection-08"})), baseline, None
    )


def worse_pair() -> EvalPair:
    """A candidate trained on wrong labels against version 3: 40 % of the items lost."""
    before = {place for place in range(320) if place % 11 == 4}
    lost = {place for place in range(320) if place % 5 < 2}
    candidate = report_of(
        "eval-ticket-router",
        items_with(lost),
        cases_with({"format-02", "injection-01", "injection-05", "injection-09"}),
    )
    return pair_of(candidate, report_of("ticket-router-3", items_with(before), cases_with({"injection-09"})), "3")


def policy(rule: Literal["superior", "non_inferior"] = "superior", **changed: Any) -> GatePolicy:
    margin = 0.0 if rule == "superior" else 0.02
    return GatePolicy(rule=rule, margin=margin, **{"floor": 0.8, "min_case_pass_rate": 0.9, **changed})


def adapter() -> Adapter:
    curve = tuple(
        TrainingPoint(
            step, 378, 2.6 * exp(-step / 32) + 0.06 + 0.05 * (1 + sin(step * 1.7)) * exp(-step / 160), step * 0.42
        )
        for step in range(3, 379, 3)
    )
    modules = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    return Adapter(
        Path("adapter"),
        Path("base"),
        "SmolLM2-135M-Instruct",
        sha("base"),
        16,
        32,
        modules,
        sha("adapter"),
        sha("run")[:32],
        sha("data"),
        curve,
    )


def dataset() -> Dataset:
    rows = {"train": 504, "dev": 128, "test": 320, "replay": 64}
    return Dataset(
        "ticket_router",
        sha("data"),
        tuple(Split(name, Path(f"{name}.jsonl"), sha(name), n) for name, n in rows.items()),
    )


def fit() -> FitReport:
    """Of an L4: the parts, one sequence of 4096 tokens (360 MiB), and 18,100 MiB of headroom."""
    parts = {
        "weights_bytes": 257 * MIB,
        "lora_bytes": 45 * MIB,
        "activation_bytes": 792 * MIB,
        "cuda_graph_bytes": 1150 * MIB,
        "non_torch_bytes": 250 * MIB,
    }
    usable = (sum(parts.values()) // MIB + 360 + 18100) * MIB
    flags = (
        "--dtype=bfloat16",
        "--max-model-len=4096",
        "--gpu-memory-utilization=0.92",
        "--max-num-seqs=256",
        "--enable-lora",
        "--max-loras=2",
        "--max-lora-rank=16",
    )
    return FitReport(
        gpu="nvidia-l4", engine_version="0.32.0", verdict="fits", total_bytes=22800 * MIB, usable_bytes=usable,
        kv_cache_bytes=18460 * MIB, kv_cache_tokens=210_032, headroom_bytes=18100 * MIB, uncertainty_bytes=1143 * MIB,
        max_model_len=4096, max_model_len_fits=8192, concurrency_at_max_model_len=51.3, host_ram_needed_bytes=3 * 1024 * MIB,
        host_ram_bytes=14 * 1024 * MIB, disk_needed_bytes=900 * MIB, disk_bytes=90 * 1024 * MIB, flags=flags, changes=(),
        reasons=("One sequence of 4096 tokens needs 2.79 GiB on nvidia-l4 (20.46 GiB usable at gpu_memory_utilization 0.92): headroom 18100 MiB, uncertain by 1143 MiB.",),
        **parts,
    )  # fmt: skip


def modelcar() -> Modelcar:
    sizes = {
        "model.safetensors": 269_060_552,
        "model-files": 3_581_440,
        "adapters/ticket_router": 19_588_608,
        "": 1_214,
    }
    layers = tuple(LayerRef(f"sha256:{sha(title)}", size, title) for title, size in sizes.items())
    digest = f"sha256:{sha('modelcar')}"
    return Modelcar(f"registry.example/models/ticket_router@{digest}", digest, layers, 19_594_752, sum(sizes.values()))


def times(count: int, middle: float) -> tuple[float, ...]:
    return tuple(middle * exp(0.35 * sin(place * 2.3) + (1.4 if place % 29 == 7 else 0)) for place in range(count))


def step(weight: int, stable: int, candidate: int, errors: int = 0) -> Step:
    said = f"{candidate} requests, {errors} failed; median first token 131 ms against 128 ms of stable"
    sides = (
        SideStats("ticket-router-3", stable, 0, times(stable, 0.128)),
        SideStats("ticket-router-4", candidate, errors, times(candidate, 0.131)),
    )
    return Step(weight, *sides, "undo" if errors else "go_on", said, 21.4)


def rollout(
    steps: tuple[Step, ...], outcome: Literal["completed", "undone"] = "completed", reason: str | None = None
) -> Rollout:
    told = reason or f"{len(steps)} steps passed"
    return Rollout(
        "local",
        "ticket_router",
        "ticket_router-8dfb1c2a90ee",
        modelcar().reference,
        "base",
        (2.31, 0.19, 0.17, 0.18),
        steps,
        outcome,
        told,
    )


def sample() -> Sample:
    answers = (
        SampleAnswer("Within how many days may I send something back?", "You may send it back within 30 days of delivery [1].", ("docs/returns.md › Returns › Time limit", "docs/returns.md › Exchanges")),
        SampleAnswer("Who pays for the return parcel?", "The shop pays when the item is faulty; otherwise you do [2].", ("docs/shipping.md › Costs",)),
    )  # fmt: skip
    return Sample("ticket_router", 42, answers, sha("sample"))


def records(*stages: tuple[str, Status, float, str]) -> tuple[StageRecord, ...]:
    return tuple(
        StageRecord(name, status, seconds, name == "load_dataset", "" if status == "failed" else sha(name), note)
        for name, status, seconds, note in stages
    )


BEFORE_GATE = (
    ("load_dataset", "done", 0.031, "4 splits, 1016 items"),
    ("train", "done", 163.4, "378 steps, loss 2.45 → 0.07, rank 16"),
    ("evaluate", "done", 96.1, "0.909 against 0.019 of base on 320 items, 34 of 36 cases"),
)  # fmt: skip
AFTER_GATE = (
    ("register", "done", 1.9, "ticket_router version 1 @candidate"),
    ("preflight", "done", 0.4, "fits on nvidia-l4, 18,100 MiB left, 51 requests of full length"),
    ("build_and_push", "done", 3.2, "sha256:5d0c1f9a2b7e…, 292 MB, 20 MB new, @staging"),
)


def champion() -> Outcome:
    """A first release that went all the way."""
    pair = first_pair()
    stages = (
        *BEFORE_GATE,
        ("judge", "done", 0.2, "passed"),
        *AFTER_GATE,
        ("roll_out", "done", 71.0, "completed: 4 steps passed, @champion"),
        ("sample", "done", 8.8, "2 questions answered"),
    )
    version = ModelVersion(
        "ticket_router", "1", adapter().run_id, "mlflow-artifacts:/1/adapter", sha("version"), ("candidate", "champion")
    )
    decision = decide(pair.candidate, pair.baseline, policy())
    steps = (step(10, 112, 14), step(25, 64, 24), step(50, 31, 33), step(100, 0, 40))
    return Outcome(
        "20260301-101500-ab12", "ticket_router", Path("evals/ticket_router/release.yaml"), "champion", decision.reasons, records(*stages),
        "1", modelcar().reference, dataset(), adapter(), pair, decision, version, fit(), modelcar(), rollout(steps), sample(),
    )  # fmt: skip


def rejected(pair: EvalPair | None = None) -> Outcome:
    """Stopped at the gate; version 3 stays champion."""
    pair = pair or worse_pair()
    decision = decide(pair.candidate, pair.baseline, policy("non_inferior"))
    stages = (*BEFORE_GATE, ("judge", "rejected", 0.2, f"rejected: {decision.reasons[0]}"))
    return Outcome(
        "20260302-090000-cd34", "ticket_router", Path("evals/ticket_router/release.yaml"), "rejected", decision.reasons, records(*stages),
        "3", modelcar().reference, dataset(), adapter(), pair, decision,
    )  # fmt: skip


def inconclusive() -> Outcome:
    """Two items lost of 320: the interval reaches below the margin."""
    before = {place for place in range(320) if place % 11 == 4}
    base = report_of("ticket-router-3", items_with(before), cases_with(set()))
    new = report_of("eval-ticket-router", items_with({*before, 0, 1}), cases_with(set(), frozenset({"format-00"})))
    found = rejected(pair_of(new, base, "3"))
    stages = (*found.stages[:-1], replace(found.stages[-1], status="inconclusive"))
    return replace(found, verdict="inconclusive", stages=stages)


def undone() -> Outcome:
    """Undone at 25 percent; there was no champion before."""
    whole = champion()
    steps = (step(10, 112, 14), step(25, 64, 24, errors=5))
    reason = "at 25 %: 5 of 24 candidate requests failed (20.8%), allowed 1.0%"
    stages = (*whole.stages[:7], replace(whole.stages[7], status="undone", note=f"undone: {reason}"))
    found = rollout(steps, "undone", reason)
    return replace(
        whole, verdict="undone", reasons=(f"the rollout was undone {reason}",), stages=stages, rollout=found, sample=None, champion=None, champion_reference=None
    )  # fmt: skip


def failed() -> Outcome:
    """Broke in training; nothing but the dataset was made."""
    stages = records(
        BEFORE_GATE[0], ("train", "failed", 12.0, "training dialog 7 has 900 tokens, training.max_length is 512")
    )
    reason = "training dialog 7 has 900 tokens, training.max_length is 512; raise it or shorten the item"
    return Outcome(
        "20260303-120000-ef56",
        "ticket_router",
        Path("release.yaml"),
        "failed",
        (reason,),
        stages,
        "3",
        modelcar().reference,
        dataset(),
    )
