"""The values that pass between stages, in path order. Frozen, JSON-serialisable, each with the sha256 of what it stands for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from evals.gate import GateDecision, GatePolicy
from evals.gate_blocks import BlockPlan
from evals.report import EvalReport
from serving.fit import FitReport
from serving.fit.contract import Contract
from serving.modelcar import Modelcar
from serving.rollout.golden import Golden
from serving.rollout.model import Rollout
from tasks.lora import TrainingPoint

__all__ = [
    "Adapter", "Contract", "Dataset", "EvalPair", "EvalReport", "FitReport", "GateDecision", "GatePolicy", "ModelVersion", "Modelcar",
    "Outcome", "Rollout", "Sample", "SampleAnswer", "Split", "StageRecord", "TrainingPoint",
]  # fmt: skip


@dataclass(frozen=True)
class Split:
    """One file of a dataset."""

    name: str
    path: Path
    sha256: str
    num_rows: int


@dataclass(frozen=True)
class Dataset:
    """The revision is the sha256 over the splits' sha256s."""

    name: str
    revision: str
    splits: tuple[Split, ...]

    def find(self, name: str) -> Split | None:
        return next((split for split in self.splits if split.name == name), None)

    def split(self, name: str) -> Split:
        """Raises KeyError."""
        found = self.find(name)
        if found is None:
            raise KeyError(f"the dataset {self.name} has no split {name}")
        return found


@dataclass(frozen=True)
class Adapter:
    """A trained LoRA adapter. `sha256` covers adapter_model.safetensors and adapter_config.json."""

    path: Path
    base: Path
    base_model: str
    base_sha256: str
    r: int
    lora_alpha: int
    target_modules: tuple[str, ...]
    sha256: str
    run_id: str
    dataset_revision: str
    curve: tuple[TrainingPoint, ...]


@dataclass(frozen=True)
class EvalPair:
    """The candidate's report and its baseline's, made on the same engine. `baseline_version` is None for the base model.

    With a `plan` the reports hold its first blocks, up to the one at which the verdict was clear. `golden` are the candidate's
    answers to the first items, against which a rollout and `liftlock serve` hold the version later.
    """

    candidate: EvalReport
    baseline: EvalReport
    baseline_version: str | None
    sha256: str
    plan: BlockPlan | None = None
    golden: tuple[Golden, ...] = ()


@dataclass(frozen=True)
class ModelVersion:
    """MLflow's model version and the aliases it had when it was read."""

    name: str
    version: str
    run_id: str
    source: str
    sha256: str
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class SampleAnswer:
    question: str
    answer: str
    sources: tuple[str, ...]


@dataclass(frozen=True)
class Sample:
    """What the RAG sample answered through the gateway."""

    model: str
    chunks: int
    answers: tuple[SampleAnswer, ...]
    sha256: str


@dataclass(frozen=True)
class StageRecord:
    """One line of the table at the end. `digest` is the sha256 of what the stage made."""

    name: str
    status: Literal["done", "rejected", "inconclusive", "undone", "failed"]
    seconds: float
    cached: bool
    digest: str
    note: str


@dataclass(frozen=True)
class Outcome:
    """All that one release made, as far as it came. `verdict` is the release's own, not the gate's alone."""

    run_id: str
    name: str
    spec_file: Path
    verdict: Literal["champion", "rejected", "inconclusive", "undone", "failed"]
    reasons: tuple[str, ...]
    stages: tuple[StageRecord, ...]
    champion: str | None
    champion_reference: str | None
    dataset: Dataset | None = None
    adapter: Adapter | None = None
    pair: EvalPair | None = None
    decision: GateDecision | None = None
    version: ModelVersion | None = None
    fit: FitReport | None = None
    modelcar: Modelcar | None = None
    rollout: Rollout | None = None
    contract: Contract | None = None
    sample: Sample | None = None
