"""The golden files of rendering: one text for each case, below tests/data/rendered. A person reads them.

PYTHONPATH=. python -m tests.rendered_golden    writes them anew; read the diff before it is committed
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from serving.manifests.model import Adapter, Alias, Desired, WarmUp
from serving.manifests.render import notes, render
from tests.fix_rendered import adapter_member, desired, member, on_one_engine

FOLDER = Path(__file__).parent / "data" / "rendered"
SCRIPT = WarmUp("#!/bin/sh\n# deploy/warmup/ready.sh\n", long_prompt='[{"role":"user","content":"A long text."}]')
ALIAS = Alias(
    "ticket-router", 5e-07, 1.5e-06,
    {"owner": "support", "tier": "standard", "tenants": ["team-a"], "limits": {"rpm": 600}},
    ({"model_name": "qwen-local", "litellm_params": {"model": "openai/qwen2.5-0.5b-instruct"}},),
)  # fmt: skip


def cases() -> dict[str, Desired]:
    """The full model with pools is the first; the others show what differs."""
    old, new = adapter_member("3", "3"), adapter_member("4", "4")
    idle = replace(new.adapter or Adapter("", ""), modelcar=new.modelcar, signature=new.signature)
    every = {
        "pools": desired(stable=member("3", replicas=2), alias=ALIAS),
        "one-engine-two-adapters": on_one_engine(),
        "one-engine-two-modelcars": on_one_engine(form="deployment", stable=old, candidate=new),
        "one-engine-two-modelcars-kserve": on_one_engine(stable=old, candidate=new),
        "one-engine-undone": on_one_engine(
            form="deployment", stable=old, candidate=None, weight=0, idle_adapters=(idle,)
        ),
        "swap-before": desired(strategy="swap", weight=0),
        "swap-after": desired(strategy="swap", weight=100),
        "deployment": desired(form="deployment", candidate=None, weight=0),
        "llminferenceservice": desired(form="llminferenceservice", candidate=None, weight=0),
        "pools-undone": desired(candidate=None, weight=0),
    }
    return {name: replace(each, warmup=SCRIPT) for name, each in every.items()}


def text(wanted: Desired) -> str:
    """Every file after a line with its name, and what a person is told."""
    said = [f"##### note: {note}\n" for note in notes(wanted)]
    return "\n".join([*said, *(f"##### {path}\n{content}" for path, content in render(wanted).items())])


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, wanted in cases().items():
        (FOLDER / f"{name}.txt").write_text(text(wanted))
