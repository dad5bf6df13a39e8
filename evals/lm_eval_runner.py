"""Runs one lm-eval task against a served model and reads every item's result. Effect (a child process, HTTP).

The endpoint is looked up before anything heavy starts. It gives no verdict, and a run that fails leaves nothing that
could be scored: lm-eval's error is raised, an unanswered item is never counted as wrong.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evals.child import Finished, Progress, run_child
from evals.endpoint import Served, probe, probe_completion
from evals.prompt import Prompt
from evals.report import ItemResult, canonical
from evals.suite import SuiteInvalid, Task, file_sha256, load_items, resolve_task

ROOT = Path(__file__).resolve().parent.parent

# lm-eval must not look anything up: data and tokenizer are local files.
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "NO_PROXY": "*",
    "no_proxy": "*",
}
UNSET = ("OPENAI_API_KEY", "OPENAI_BASE_URL")


class LmEvalFailed(Exception):
    """lm-eval ended without a result. The message holds its last words."""


@dataclass(frozen=True)
class LmEvalRun:
    """What lm-eval found, and what of the fingerprint it fixes. `items` are in the dataset's order."""

    served: Served
    task: str
    task_version: str
    task_sha256: str
    template_sha256: str
    dataset_sha256: str
    sampling: str
    metrics: tuple[tuple[str, float], ...]
    items: tuple[ItemResult, ...]
    tool_versions: tuple[tuple[str, str], ...]


def run_lm_eval(
    task_yaml: Path,
    dataset: Path,
    *,
    prompt: Prompt,
    base_url: str,
    model: str,
    tokenizer: Path,
    workdir: Path,
    metric: str = "exact_match,none",
    num_concurrent: int = 8,
    batch_size: int = 1,
    limit: int | None = None,
    timeout_s: float = 3600.0,
    progress: Progress,
) -> LmEvalRun:
    """Ask every item of `dataset` (or the first `limit`) once. `workdir` is made and holds the job, log and result.

    Raises EndpointUnreachable, ModelNotServed, CompletionRefused, SuiteInvalid, PromptInvalid or LmEvalFailed.
    """
    items = load_items(dataset)
    task = resolve_task(task_yaml, dataset, prompt)
    if not (tokenizer / "tokenizer.json").is_file():
        raise SuiteInvalid(f"{tokenizer} has no tokenizer.json; give the folder of the served model's checkpoint")
    served = probe(base_url, model)
    probe_completion(served)
    total = len(items) if limit is None else min(limit, len(items))
    job = {
        "base_url": served.base_url,
        "model": model,
        "tokenizer": str(tokenizer.resolve()),
        "task": task.name,
        "slices": task.slices,
        "dataset": str(dataset.resolve()),
        "system": prompt.system,
        "user": prompt.user,
        "metric": metric,
        "num_concurrent": num_concurrent,
        "batch_size": batch_size,
        "limit": limit,
    }
    found = _run_worker(job, task, workdir.resolve(), timeout_s, total, progress)
    if metric not in found["metrics"]:
        raise SuiteInvalid(f"the task gives no metric {metric!r}; it gives {', '.join(found['metrics']) or 'none'}")
    run = _read(found, served, task, dataset, _sampling(task, num_concurrent, batch_size, limit))
    if [item.id for item in run.items] != [item["id"] for item in items[:total]]:
        raise LmEvalFailed(f"lm-eval gave {len(run.items)} results for {total} items, or in another order")
    return run


def _sampling(task: Task, num_concurrent: int, batch_size: int, limit: int | None) -> str:
    """Scores move with batch composition, so concurrency and batch size belong to it."""
    generation = task.config.get("generation_kwargs")
    settings = {"num_concurrent": num_concurrent, "batch_size": batch_size, "limit": limit}
    return canonical({"generation_kwargs": generation, **settings})


def _read(found: dict[str, Any], served: Served, task: Task, dataset: Path, sampling: str) -> LmEvalRun:
    return LmEvalRun(
        served=served,
        task=task.name,
        task_version=task.version,
        task_sha256=task.sha256,
        template_sha256=found["template_sha256"],
        dataset_sha256=file_sha256(dataset),
        sampling=sampling,
        metrics=tuple(sorted(found["metrics"].items())),
        items=tuple(_item(item) for item in found["items"]),
        tool_versions=tuple(sorted(found["tool_versions"].items())),
    )


def _run_worker(
    job: dict[str, Any], task: Task, workdir: Path, timeout_s: float, total: int, progress: Progress
) -> dict[str, Any]:
    task_folder, job_file, result_file = workdir / "task", workdir / "job.json", workdir / "result.json"
    task_folder.mkdir(parents=True, exist_ok=True)
    for leftover in (result_file, result_file.with_suffix(".error")):
        leftover.unlink(missing_ok=True)
    # JSON is YAML; lm-eval reads the task from a folder of its own, so no other task can shadow it
    (task_folder / f"{task.name}.yaml").write_text(json.dumps(task.config), encoding="utf-8")
    job_file.write_text(json.dumps({**job, "task_folder": str(task_folder)}), encoding="utf-8")
    finished = run_child(
        [sys.executable, "-m", "evals.lm_eval_worker", str(job_file), str(result_file)],
        cwd=ROOT,  # puts this checkout's `evals` before any other package of the name
        log=workdir / "lm_eval.log",
        timeout_s=timeout_s,
        total=total,
        progress=progress,
        # the data set cache of the user is neither read nor written
        set_env={**OFFLINE, "HF_DATASETS_CACHE": str(workdir / "datasets")},
        unset_env=UNSET,
    )
    if finished.returncode != 0 or not result_file.is_file():
        raise LmEvalFailed(_why(finished, job, timeout_s, workdir))
    found: dict[str, Any] = json.loads(result_file.read_text(encoding="utf-8"))
    return found


def _why(finished: Finished, job: dict[str, Any], timeout_s: float, workdir: Path) -> str:
    asked = f"lm-eval's {job['task']} on {job['model']!r}"
    if finished.timed_out:
        return f"{asked} took more than {timeout_s:.0f} s and was stopped; raise the limit or ask fewer items"
    note = workdir / "result.error"
    reason = note.read_text(encoding="utf-8") if note.is_file() else finished.tail or "it said nothing"
    return f"{asked} ended with exit code {finished.returncode}: {reason}. The whole log is {workdir / 'lm_eval.log'}"


def _item(found: dict[str, Any]) -> ItemResult:
    slices = tuple((column, value) for column, value in found["slices"])
    return ItemResult(found["id"], found["score"], found["answer"], found["target"], slices)
