"""The part `gate` of release.yaml: what a candidate must show. spec.py reads the file."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SliceSpec(Part):
    """A rule for the items whose column has one value. It shares alpha with the other rules."""

    column: str = Field(min_length=1, description="One of the task's slices.")
    value: str = Field(description="The items' value in it.")
    rule: Literal["superior", "non_inferior", "floor"] = Field("non_inferior", description="As of the whole suite.")
    bound: float = Field(ge=0, lt=1, description="The margin, or the floor; above 0 for non_inferior and floor.")

    @field_validator("bound")
    @classmethod
    def _can_be_met(cls, bound: float, info: ValidationInfo) -> float:
        if bound == 0 and info.data.get("rule") != "superior":
            raise ValueError(f"must be above 0 for {info.data.get('rule')}")
        return bound


class GateSpec(Part):
    """What the candidate must show. Compared item by item with the baseline."""

    baseline: Literal["champion", "base"] = Field(
        "champion", description="champion falls back to base where there is none."
    )
    task: Path = Field(description="lm-eval task YAML.")
    prompt: Path = Field(
        description="prompt.yaml: system and user text around an item; used in training, evaluation and serving."
    )
    cases: Path | None = Field(None, description="promptfoo configuration with cases that must hold.")
    metric: str = Field("exact_match,none", description="lm-eval's metric and filter, as `metric,filter`.")
    rule: Literal["superior", "non_inferior"] = Field("non_inferior", description="Against the baseline.")
    margin: float = Field(0.05, ge=0, lt=1, description="How much worse still counts as non_inferior.")
    alpha: float = Field(0.05, gt=0, le=0.5, description="Bound on the rate of false promotions.")
    floor: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="The lower confidence bound of the candidate's own score must lie above it; 0 is none.",
    )
    min_items: int = Field(50, ge=2, description="Fewer test items than this are inconclusive.")
    min_case_pass_rate: float = Field(0.0, ge=0, le=1, description="Share of promptfoo cases that must pass.")
    max_newly_failing_cases: int = Field(
        0, ge=0, description="promptfoo cases that the baseline passes and the candidate may fail."
    )
    slices: tuple[SliceSpec, ...] = Field((), max_length=50, description="Rules for parts of the items.")
    cluster: str = Field(
        "", description="Field of the items that says which belong together, such as a document or a dialogue."
    )
    repeats: int = Field(
        1, ge=1, le=64, description="Times each item is asked, where the task samples; its score is their mean."
    )
    block: int = Field(
        0, ge=0, le=100000, description="Items between two looks; the gate stops when it is sure. 0 asks all at once."
    )
    seed: int = Field(0, ge=0, le=2**32 - 1, description="Of the random order of the blocks.")

    @field_validator("margin")
    @classmethod
    def _can_be_met(cls, margin: float, info: ValidationInfo) -> float:
        if margin == 0 and info.data.get("rule") == "non_inferior":
            raise ValueError("must be above 0 for non_inferior: no interval lies wholly above a difference of 0")
        return margin
