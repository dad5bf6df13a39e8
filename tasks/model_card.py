"""The adapter's model card (README.md): Hugging Face's YAML head, then what it was trained on and how to ask it.

It travels in the modelcar, whose digest depends on the model's bytes alone, so it says nothing that changes from run to run:
scores and verdicts stand in MLflow and in the release's report.
"""

from __future__ import annotations

import json

from evals.prompt import load_prompt
from tasks.artifacts import Dataset, TrainingPoint
from tasks.spec import NOT_OF_THE_BYTES, Release


def training_card(spec: Release, dataset: Dataset, base: str, base_sha256: str, last: TrainingPoint) -> str:
    prompt = load_prompt(spec.gate.prompt)
    head = "\n".join(
        (
            "---",
            "library_name: peft",
            f"base_model: {base}",
            "tags: [lora, liftlock]",
            f"datasets: [{dataset.name}]",
            "---",
        )
    )
    data = "\n".join(
        f"| {split.name} | {split.num_rows} | `{split.sha256}` |" for split in dataset.splits if split.name != "test"
    )
    training = "\n".join(
        f"| {key} | {value} |" for key, value in spec.training.model_dump(mode="json", exclude=NOT_OF_THE_BYTES).items()
    )
    asked = json.dumps(
        {
            "model": spec.name,
            "messages": [
                *([{"role": "system", "content": prompt.system}] if prompt.system else []),
                {"role": "user", "content": prompt.user},
            ],
        },
        indent=2,
    )
    return f"""{head}

# {spec.name}

A LoRA adapter for {base} (files' sha256 `{base_sha256}`), made by Liftlock.

## Training data

| split | items | sha256 |
|---|---|---|
{data}

## Training

{last.total_steps} steps, final loss {last.loss:.4f}.

| parameter | value |
|---|---|
{training}

## How to ask it

```json
{asked}
```

## Evaluation

An adapter is served only after the eval gate. Its scores, interval and verdict are tags of the MLflow model version that names
this adapter's sha256, and stand in the release's report.html.
"""
