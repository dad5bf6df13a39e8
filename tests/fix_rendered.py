"""A model as it shall be on a cluster, for the tests of rendering: small values, with one change at a time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from serving.manifests.model import Adapter, Desired, Fit, Member, Platform, WarmUp

ROOT = Path(__file__).parents[1]
ENGINE = "vllm/vllm-openai:v0.23.0@sha256:6d8429e38e3747723ca07ee1b17972e09bb9c51c4032b266f24fb1cc3b22ed8f"
PICKER = f"registry.k8s.io/gateway-api-inference-extension/epp:v1.5.0@sha256:{'5' * 64}"
FLAGS = ("--dtype=bfloat16", "--max-model-len=2048", "--gpu-memory-utilization=0.9", "--max-num-seqs=64")
LORA = (*FLAGS, "--enable-lora", "--max-loras=4", "--max-lora-rank=8")


def evidence(car: str) -> tuple[tuple[str, str], ...]:
    """With what was signed for the modelcar."""
    reports = (("eval_report_sha256", f"sha256:{'e' * 64}"), ("fit_report_sha256", f"sha256:{'f' * 64}"))
    return (*reports, ("signature", f"sha256:{(car * 64)[:63]}d"))


def member(version: str = "3", **changes: Any) -> Member:
    made = Member(
        version=version,
        modelcar=f"registry.example.com/models/ticket-router@sha256:{version * 64}",
        flags=FLAGS,
        fit=Fit(f"sha256:{'b' * 64}", "nvidia-l4", "fits"),
        evidence=evidence(version),
    )
    return replace(made, **changes)


def adapter_member(version: str = "3", car: str = "4") -> Member:
    """Both versions' adapters lie in one modelcar."""
    adapter = Adapter(f"ticket-router-v{version}", f"adapters/ticket-router-v{version}")
    modelcar = f"registry.example.com/models/ticket-router@sha256:{car * 64}"
    return member(version, flags=LORA, adapter=adapter, modelcar=modelcar, evidence=evidence(car))


def desired(**changes: Any) -> Desired:
    """A canary of two full models by default."""
    values: dict[str, Any] = {
        "model": "ticket-router",
        "namespace": "serving",
        "strategy": "pool",
        "form": "inferenceservice",
        "platform": Platform(engine_image=ENGINE, picker_image=PICKER),
        "warmup": WarmUp((ROOT / "deploy" / "warmup" / "ready.sh").read_text()),
        "stable": member("3"),
        "candidate": member("4"),
        "weight": 10,
    }
    return Desired(**values | changes)


def on_one_engine(**changes: Any) -> Desired:
    values: dict[str, Any] = {
        "strategy": "adapter", "stable": adapter_member("3"), "candidate": adapter_member("4"),
    }  # fmt: skip
    return desired(**values | changes)
