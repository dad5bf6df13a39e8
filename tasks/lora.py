"""LoRA fine-tuning with TRL and PEFT as a plain function; `python -m tasks.lora REQUEST.json` runs it in a process of its own.

A process of its own keeps torch out of the flow, can be killed, and starts from the same state every time: same request,
same adapter, byte for byte, on one machine. Progress is one JSON object a line on standard output.
It trains on dialogs only; rendering items into dialogs is the caller's work.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tasks.checkpoints import Checkpoint, CheckpointUnusable, read_checkpoint, remove_checkpoint
from tasks.resumable import resumable, train_resumably

CONFIG_KEYS = (
    "peft_type", "task_type", "base_model_name_or_path", "r", "lora_alpha", "lora_dropout", "target_modules",
    "layers_to_transform", "layers_pattern", "bias", "use_rslora", "use_dora", "fan_in_fan_out", "inference_mode", "modules_to_save",
)  # fmt: skip


SHORT_DIALOG = 512  # tokens; up to here plain attention is a fifth of a CPU's step faster than torch's fused one


class TrainingRefused(Exception):
    """The request cannot be trained on; the message names the fault and the fix."""


@dataclass(frozen=True)
class LoraRequest:
    """What to train. `dialogs` has one {"prompt": [messages], "completion": [messages]} a line.

    `checkpoint` is a file, "" for none; it is used again by a request of the same `key`, a digest of all that the adapter
    depends on, and is removed at the end.
    """

    base: str
    base_name: str
    dialogs: str
    out: str
    r: int
    lora_alpha: int
    target_modules: tuple[str, ...]
    first_layer: int
    learning_rate: float
    num_train_epochs: float
    per_device_train_batch_size: int
    warmup_steps: int
    max_length: int
    seed: int
    key: str = ""
    checkpoint: str = ""
    checkpoint_seconds: float = 30.0


@dataclass(frozen=True)
class TrainingPoint:
    """Loss at one logged step; `seconds` since training began."""

    step: int
    total_steps: int
    loss: float
    seconds: float


def _say(event: str, **values: Any) -> None:
    print(json.dumps({"event": event, **values}), flush=True)


def _dtype(torch: Any) -> Any:
    """bfloat16 where the processor multiplies it natively (twice as fast or more), else float32."""
    native = torch.cuda.is_available() or torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if native else torch.float32


def _longest(request: LoraRequest, tokenizer: Any, rows: list[dict[str, Any]]) -> int:
    """Tokens of the longest dialog; one above max_length is refused, never cut."""
    longest = 0
    for number, row in enumerate(rows, 1):
        text = tokenizer.apply_chat_template(row["prompt"] + row["completion"], tokenize=False)
        length = len(tokenizer(text, add_special_tokens=False).input_ids)
        if length > request.max_length:
            raise TrainingRefused(
                f"training dialog {number} has {length} tokens, training.max_length is {request.max_length}; raise it or shorten the item"
            )
        longest = max(longest, length)
    return longest


def _completion_trainer() -> Any:
    """SFTTrainer with the cross-entropy over the completion's tokens alone.

    TRL's own loss multiplies every position with the vocabulary, masked ones too; for short answers that is half of a
    step on a CPU. The value is the same.
    """
    import torch
    from trl import SFTTrainer

    class CompletionLoss(SFTTrainer):  # type: ignore[misc]
        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            labels = inputs["labels"]
            causal = self.accelerator.unwrap_model(model).get_base_model()
            hidden = causal.model(
                input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]
            ).last_hidden_state
            wanted = labels[:, 1:] != -100
            logits = causal.lm_head(hidden[:, :-1][wanted]).float()
            loss = torch.nn.functional.cross_entropy(logits, labels[:, 1:][wanted])
            return (loss, {"logits": logits}) if return_outputs else loss

    return CompletionLoss


def _progress(curve: list[TrainingPoint]) -> Any:
    """A callback that says every logged loss and adds it to the curve, which may have a beginning."""
    from transformers import TrainerCallback

    class Progress(TrainerCallback):  # type: ignore[misc]
        began = time.monotonic() - (curve[-1].seconds if curve else 0.0)

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if logs and "loss" in logs:
                seconds = round(time.monotonic() - self.began, 2)
                curve.append(TrainingPoint(state.global_step, state.max_steps, float(logs["loss"]), seconds))
                _say("step", **asdict(curve[-1]))

    return Progress()


def _adapted_layers(request: LoraRequest, layers: int) -> dict[str, Any]:
    """PEFT's arguments for adapters on the layers from first_layer up; none where that is all of them."""
    if request.first_layer >= layers:
        raise TrainingRefused(
            f"training.first_layer is {request.first_layer}, but {request.base_name} has {layers} layers; use 0 to {layers - 1}"
        )
    if request.first_layer == 0:
        return {}
    return {"layers_to_transform": list(range(request.first_layer, layers)), "layers_pattern": "layers"}


def _arguments(request: LoraRequest, on_cpu: bool) -> Any:
    from trl import SFTConfig

    return SFTConfig(
        output_dir=str(Path(request.out).with_suffix(".trainer")),
        num_train_epochs=request.num_train_epochs,
        per_device_train_batch_size=request.per_device_train_batch_size,
        learning_rate=request.learning_rate,
        warmup_steps=request.warmup_steps,
        max_length=request.max_length,
        seed=request.seed,
        data_seed=request.seed,
        train_sampling_strategy="group_by_length",
        bf16=not on_cpu,  # a CPU would cast every weight anew at each step; PEFT keeps the adapter's own in float32 anyway
        use_cpu=on_cpu,
        gradient_checkpointing=False,
        logging_steps=2,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )


def _trainer(request: LoraRequest, rows: list[dict[str, Any]], curve: list[TrainingPoint]) -> Any:
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer

    on_cpu = not torch.cuda.is_available()
    tokenizer = AutoTokenizer.from_pretrained(request.base)
    attention = "eager" if _longest(request, tokenizer, rows) <= SHORT_DIALOG and on_cpu else "sdpa"
    model = AutoModelForCausalLM.from_pretrained(
        request.base, dtype=_dtype(torch), attn_implementation=attention, use_safetensors=True
    )
    lora = LoraConfig(
        r=request.r,
        lora_alpha=request.lora_alpha,
        lora_dropout=0.0,
        target_modules=list(request.target_modules),
        task_type="CAUSAL_LM",
        **_adapted_layers(request, model.config.num_hidden_layers),
    )
    return resumable(_completion_trainer())(
        model=model,
        args=_arguments(request, on_cpu),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=[_progress(curve)],
        peft_config=lora,
    )


def _canonical_config(saved: dict[str, Any], base_name: str) -> dict[str, Any]:
    """adapter_config.json without what changes from run to run: set order, machine paths, library versions."""
    kept = {key: saved[key] for key in CONFIG_KEYS if key in saved}
    return {**kept, "base_model_name_or_path": base_name, "target_modules": sorted(saved["target_modules"])}


def train_lora(request: LoraRequest) -> None:
    """Write adapter_model.safetensors and adapter_config.json into `request.out`.

    Raises TrainingRefused for dialogs that are too long or a first_layer that the model does not have.
    """
    rows = [json.loads(line) for line in Path(request.dialogs).read_text(encoding="utf-8").splitlines()]
    found = _checkpoint(request)
    curve = [TrainingPoint(**point) for point in found.state["curve"]] if found else []
    trainer = _trainer(request, rows, curve)
    _say("start", dialogs=len(rows), parameters=sum(p.numel() for p in trainer.model.parameters() if p.requires_grad))
    for point in curve:
        _say("step", **asdict(point))
    file = Path(request.checkpoint) if request.checkpoint else None
    train_resumably(trainer, file, request.key, found, request.checkpoint_seconds, curve, _say)
    _save(request, trainer)
    if file:
        remove_checkpoint(file)
    _say("done")


def _checkpoint(request: LoraRequest) -> Checkpoint | None:
    """The one to go on from. One that cannot be used is told, and the training begins anew."""
    if not request.checkpoint:
        return None
    try:
        return read_checkpoint(Path(request.checkpoint), request.key)
    except CheckpointUnusable as unusable:
        _say("anew", reason=str(unusable))
        return None


def _save(request: LoraRequest, trainer: Any) -> None:
    out = Path(request.out)
    out.mkdir(parents=True, exist_ok=True)
    trainer.model.save_pretrained(out, safe_serialization=True)
    config = json.loads((out / "adapter_config.json").read_text())
    (out / "adapter_config.json").write_text(
        json.dumps(_canonical_config(config, request.base_name), indent=2, sort_keys=True) + "\n"
    )
    (out / "README.md").unlink(missing_ok=True)
    (out / "adapter_model.safetensors").chmod(0o644)


def main() -> int:
    try:
        train_lora(LoraRequest(**json.loads(Path(sys.argv[1]).read_text())))
    except TrainingRefused as refused:
        _say("refused", reason=str(refused))
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
