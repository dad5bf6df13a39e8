"""The child process that runs lm-eval: `python -m evals.lm_eval_worker JOB.json RESULT.json`.

A process of its own keeps lm-eval's logging, bars and memory out of the pipeline and can be killed. It calls
`lm_eval.evaluator.evaluate` and not `simple_evaluate`, which adds four seconds of torch environment report to each run.
Not for people: lm_eval_runner.py writes the job, sets the offline switches and reads the result.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from evals.child import PROGRESS
from evals.prompt import Prompt, messages
from evals.suite import load_items

SEED = 1234  # sent with every request; greedy decoding does not use it
NEVER_TRUNCATE = 1_000_000  # lm-eval cuts long prompts silently; the engine refuses them with its reason


class TemplateMismatch(Exception):
    """The endpoint applies another chat template than the tokenizer folder that lm-eval renders with."""


def main(job_path: Path, result_path: Path) -> None:
    """Run one job and put the result in place in one step."""
    job = json.loads(job_path.read_text(encoding="utf-8"))
    sys.excepthook = _note_uncaught(result_path.with_suffix(".error"))
    report_progress = _progress_line()
    model = _model(job, report_progress)
    check_template(job, model.tokenizer)
    found = _evaluate(job, model)
    found["template_sha256"] = hashlib.sha256(model.chat_template(True).encode()).hexdigest()
    found["tool_versions"] = {name: version(name) for name in ("lm_eval", "transformers")}
    partial = result_path.with_suffix(".partial")
    partial.write_text(json.dumps(found, ensure_ascii=False, allow_nan=False), encoding="utf-8")
    partial.replace(result_path)


def _note_uncaught(note: Path) -> Callable[[type[BaseException], BaseException, TracebackType | None], None]:
    """Keep the error that ended the run: asyncio prints others after it, of the requests that were cut off."""

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        note.write_text(f"{kind.__name__}: {error}", encoding="utf-8")
        sys.__excepthook__(kind, error, trace)

    return hook


def _progress_line() -> Callable[[int], None]:
    """A writer on the real stdout; everything else that prints goes to stderr from here on."""
    out = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)
    return lambda count: print(f"{PROGRESS} {count}", file=out)


def _model(job: Mapping[str, Any], report_progress: Callable[[int], None]) -> Any:
    """lm-eval's local-completions, telling how many prompts were answered. A retried request counts once."""
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    class CountingCompletions(LocalCompletionsAPI):  # type: ignore[misc]
        async def amodel_call(self, session: Any, sem: Any, messages: Any, **rest: Any) -> Any:
            answers = await super().amodel_call(session, sem, messages, **rest)
            report_progress(len(messages))
            return answers

        def model_call(self, messages: Any, **rest: Any) -> Any:
            answers = super().model_call(messages, **rest)
            report_progress(len(messages))
            return answers

    return CountingCompletions(
        model=job["model"],
        base_url=f"{job['base_url']}/completions",
        tokenizer=job["tokenizer"],
        tokenizer_backend="huggingface",
        num_concurrent=job["num_concurrent"],
        batch_size=job["batch_size"],
        max_length=NEVER_TRUNCATE,
        seed=SEED,
    )


def _evaluate(job: Mapping[str, Any], model: Any) -> dict[str, Any]:
    from lm_eval.evaluator import evaluate
    from lm_eval.tasks import TaskManager

    loaded = TaskManager(include_path=job["task_folder"], include_defaults=False).load([job["task"]])
    found = evaluate(
        lm=model,
        task_dict=loaded,
        limit=job["limit"],
        bootstrap_iters=0,
        log_samples=True,
        system_instruction=job["system"],
        apply_chat_template=True,
    )
    metric, _, chosen_filter = job["metric"].partition(",")
    results = found["results"][job["task"]]
    known = job["metric"] in results  # the parent names the metrics that there are
    samples = [sample for sample in found["samples"][job["task"]] if known and sample["filter"] == chosen_filter]
    return {
        # bootstrap_iters=0 makes every stderr the text "N/A"; values can be numpy floats, which JSON refuses
        "metrics": {key: float(value) for key, value in results.items() if "," in key and not isinstance(value, str)},
        "items": [_item(sample, metric, job["slices"]) for sample in samples],
    }


def _item(sample: Mapping[str, Any], metric: str, slices: list[str]) -> dict[str, Any]:
    answer, doc = sample["filtered_resps"][0], sample["doc"]
    return {
        "id": doc["id"],
        "score": float(sample[metric]),
        "answer": answer if isinstance(answer, str) else json.dumps(answer),
        "target": str(sample["target"]),
        "slices": [[column, str(doc[column])] for column in slices],
    }


def check_template(job: Mapping[str, Any], tokenizer: Any) -> None:
    """Compare token ids of the first item with the endpoint's own rendering, where it has vLLM's /tokenize."""
    first = messages(Prompt(job["system"], job["user"]), load_items(Path(job["dataset"]))[0])
    body = {"model": job["model"], "messages": first, "add_generation_prompt": True}
    try:
        answer = httpx.post(f"{job['base_url'].removesuffix('/v1')}/tokenize", json=body, timeout=30, trust_env=False)
        theirs = answer.json().get("tokens") if answer.is_success else None
    except (httpx.HTTPError, ValueError, AttributeError):
        return
    text = tokenizer.apply_chat_template(list(first), tokenize=False, add_generation_prompt=True)
    ours = tokenizer(text, add_special_tokens=False).input_ids
    if theirs is not None and theirs != ours:
        raise TemplateMismatch(
            f"the endpoint renders the first item to {len(theirs)} token ids and the tokenizer {job['tokenizer']} to "
            f"{len(ours)} others; give the tokenizer folder of the model that is served"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
