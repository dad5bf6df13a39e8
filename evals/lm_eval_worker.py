"""The child process that runs lm-eval: `python -m evals.lm_eval_worker JOB.json`, then one request a line on its stdin.

A process of its own keeps lm-eval's logging, bars and memory out of the pipeline and can be killed; it stays up, so that
blocks of items can be asked one after another without paying for its start again. It calls `lm_eval.evaluator.evaluate`
and not `simple_evaluate`, which adds four seconds of torch environment report to each run.
Not for people: lm_eval_runner.py writes the job, sets the offline switches and reads the results.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable, Mapping
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from evals.answers import Answers
from evals.child import DONE, PROGRESS
from evals.prompt import Prompt, messages
from evals.suite import load_items

SEED = 1234  # sent with every request, plus the number of the repeat; greedy decoding does not use it
NEVER_TRUNCATE = 1_000_000  # lm-eval cuts long prompts silently; the engine refuses them with its reason

Say = Callable[[str], None]


class TemplateMismatch(Exception):
    """The endpoint applies another chat template than the tokenizer folder that lm-eval renders with."""


def main(job_path: Path) -> None:
    """Answer requests until stdin ends; each result is put in place in one step."""
    job = json.loads(job_path.read_text(encoding="utf-8"))
    sys.excepthook = _note_uncaught(job_path.with_name("result.error"))
    asking = Asking(job, _line_writer())
    for line in sys.stdin:
        request = json.loads(line)
        found, result = asking.answer(request), Path(request["result"])
        partial = result.with_suffix(".partial")
        partial.write_text(json.dumps(found, ensure_ascii=False, allow_nan=False), encoding="utf-8")
        partial.replace(result)
        asking.say(DONE)


def _note_uncaught(note: Path) -> Callable[[type[BaseException], BaseException, TracebackType | None], None]:
    """Keep the error that ended the run: asyncio prints others after it, of the requests that were cut off."""

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        note.write_text(f"{kind.__name__}: {error}", encoding="utf-8")
        sys.__excepthook__(kind, error, trace)

    return hook


def _line_writer() -> Say:
    """A writer on the real stdout; everything else that prints goes to stderr from here on."""
    out = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)
    return lambda line: print(line, file=out)


class Asking:
    """One task, and the models that it was asked of so far."""

    def __init__(self, job: Mapping[str, Any], say: Say) -> None:
        self.job, self.say = job, say
        self._models: dict[str, Any] = {}

    @cached_property
    def _tasks(self) -> Any:
        from lm_eval.tasks import TaskManager

        return TaskManager(include_path=self.job["task_folder"], include_defaults=False).load([self.job["task"]])

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """`request` names the model, the file of its answers (or None), the places of the items in the data set and the repeat."""
        model = self._model(request["model"], request["answers"])
        model.repeat(request["repeat"])
        return {
            **_evaluate(self.job, self._tasks, model, sorted(request["samples"])),
            "template_sha256": hashlib.sha256(model.chat_template(True).encode()).hexdigest(),
            "tool_versions": {name: version(name) for name in ("lm_eval", "transformers")},
        }

    def _model(self, name: str, answers: str | None) -> Any:
        if name not in self._models:
            job = {**self.job, "model": name}
            model = _model(job, Answers(Path(answers) if answers else None), self.say)
            check_template(job, model.tokenizer)
            self._models[name] = model
        return self._models[name]


def _model(job: Mapping[str, Any], answers: Answers, say: Say) -> Any:
    """lm-eval's local-completions, telling how many prompts were answered. A retried request counts once."""
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    def tell(count: int) -> None:
        say(f"{PROGRESS} {count}")

    class RememberingCompletions(LocalCompletionsAPI):  # type: ignore[misc]
        def repeat(self, number: int) -> None:
            self._seed, answers.repeat = SEED + number, number

        async def amodel_call(self, session: Any, sem: Any, messages: Any, **rest: Any) -> Any:
            found = await super().amodel_call(session, sem, messages, **rest)
            tell(len(messages))
            return found

        def model_call(self, messages: Any, **rest: Any) -> Any:
            found = super().model_call(messages, **rest)
            tell(len(messages))
            return found

        def generate_until(self, requests: Any, disable_tqdm: bool = False) -> Any:
            return self._remembered("generate_until", requests, super().generate_until)

        def loglikelihood(self, requests: Any, disable_tqdm: bool = False) -> Any:
            return self._remembered("loglikelihood", requests, super().loglikelihood)

        def _remembered(self, kind: str, requests: Any, ask: Any) -> Any:
            found, known = answers.through(kind, requests, ask)
            if known:
                tell(known)
            return found

    model = RememberingCompletions(
        model=job["model"],
        base_url=f"{job['base_url']}/completions",
        tokenizer=job["tokenizer"],
        tokenizer_backend="huggingface",
        num_concurrent=job["num_concurrent"],
        batch_size=job["batch_size"],
        max_length=NEVER_TRUNCATE,
        seed=SEED,
    )
    model.set_cache_hook(answers)  # is told each answer as it comes
    return model


def _evaluate(job: Mapping[str, Any], tasks: Any, model: Any, samples: list[int]) -> dict[str, Any]:
    from lm_eval.evaluator import evaluate

    found = evaluate(
        lm=model,
        task_dict=tasks,
        samples={job["task"]: samples},
        bootstrap_iters=0,
        log_samples=True,
        system_instruction=job["system"],
        apply_chat_template=True,
    )
    metric, _, chosen_filter = job["metric"].partition(",")
    results = found["results"][job["task"]]
    known = job["metric"] in results  # the parent names the metrics that there are
    kept = [sample for sample in found["samples"][job["task"]] if known and sample["filter"] == chosen_filter]
    return {
        # bootstrap_iters=0 makes every stderr the text "N/A"; values can be numpy floats, which JSON refuses
        "metrics": {key: float(value) for key, value in results.items() if "," in key and not isinstance(value, str)},
        "items": [_item(sample, metric, job["slices"], job["cluster"]) for sample in kept],
    }


def _item(sample: Mapping[str, Any], metric: str, slices: list[str], cluster: str) -> dict[str, Any]:
    answer, doc = sample["filtered_resps"][0], sample["doc"]
    return {
        "id": doc["id"],
        "score": float(sample[metric]),
        "answer": answer if isinstance(answer, str) else json.dumps(answer),
        "target": str(sample["target"]),
        "slices": [[column, str(doc[column])] for column in slices],
        "cluster": str(doc[cluster]) if cluster else "",
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
    main(Path(sys.argv[1]))
