"""Asks one lm-eval task of served models and reads every item's result. Effect (a child process, HTTP).

The endpoint is looked up before anything heavy starts. It gives no verdict, and a run that fails leaves nothing that
could be scored: lm-eval's error is raised, an unanswered item is never counted as wrong. Answers that came are kept.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from evals.child import Finished, Progress, StandingChild
from evals.endpoint import Served, probe, probe_completion, probe_logprobs
from evals.prompt import Prompt
from evals.report import ItemResult, canonical
from evals.suite import SuiteInvalid, Task, check_repeats, file_sha256, load_items, resolve_task

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


@dataclass(frozen=True)
class Setting:
    """How items are asked. Scores move with batch composition, so all of it belongs to the fingerprint.

    `block` and `seed` are of the plan by which items are asked in blocks, None where they are asked at once. `repeats` is how
    often each item is asked, for tasks that sample; `cluster` is the items' field that says which belong together.
    """

    metric: str = "exact_match,none"
    num_concurrent: int = 8
    batch_size: int = 1
    limit: int | None = None
    block: int | None = None
    seed: int | None = None
    repeats: int = 1
    cluster: str = ""

    def sampling(self, task: Task) -> str:
        blocks = {} if self.block is None else {"block": self.block, "seed": self.seed}
        repeats = {} if self.repeats == 1 else {"repeats": self.repeats}
        settings = {
            "num_concurrent": self.num_concurrent,
            "batch_size": self.batch_size,
            "limit": self.limit,
            **blocks,
            **repeats,
        }
        return canonical({"generation_kwargs": task.config.get("generation_kwargs"), **settings})


class LmEval:
    """One task on one endpoint, for as many models and parts of its items as are asked for. The process stays up until
    it is closed; it starts with the first items, so what is refused before costs nothing.

    `tokenizer` is the checkpoint folder whose chat template is served. Raises SuiteInvalid or PromptInvalid.
    """

    def __init__(
        self,
        task_yaml: Path,
        dataset: Path,
        *,
        prompt: Prompt,
        base_url: str,
        tokenizer: Path,
        workdir: Path,
        setting: Setting,
        timeout_s: float = 3600.0,
    ) -> None:
        self.items = load_items(dataset)
        self.task = resolve_task(task_yaml, dataset, prompt)
        if not (tokenizer / "tokenizer.json").is_file():
            raise SuiteInvalid(f"{tokenizer} has no tokenizer.json; give the folder of the served model's checkpoint")
        check_repeats(self.task, setting.repeats)
        self._dataset, self._prompt, self._tokenizer = dataset, prompt, tokenizer
        self._base_url, self._setting, self._timeout_s = base_url, setting, timeout_s
        self._workdir = workdir.resolve()
        self._places = {item["id"]: place for place, item in enumerate(self.items)}
        self._served: dict[str, Served] = {}
        self._child: StandingChild | None = None

    @property
    def repeats(self) -> int:
        return self._setting.repeats

    def ask(
        self, model: str, ids: Sequence[str], *, answers: Path | None = None, repeat: int = 0, progress: Progress
    ) -> LmEvalRun:
        """Ask `model` the items `ids` once. `answers` is the file in which its answers are kept and looked for first.

        A sampled answer is drawn with the seed of its `repeat`.

        Raises EndpointUnreachable, ModelNotServed, CompletionRefused, SuiteInvalid or LmEvalFailed.
        """
        served = self._probed(model)
        places = sorted(self._places[name] for name in ids)
        if not places:
            raise ValueError("no items to ask")
        result = self._workdir / "result.json"
        kept = None if answers is None else str(answers.resolve())
        request = {"model": model, "answers": kept, "samples": places, "result": str(result), "repeat": repeat}
        child = self._started()
        for leftover in (result, result.with_suffix(".error")):
            leftover.unlink(missing_ok=True)
        ended = child.ask(request, timeout_s=self._timeout_s, total=len(places), progress=progress)
        if ended is not None or not result.is_file():
            raise LmEvalFailed(self._why(ended, model))
        return self._read(json.loads(result.read_text(encoding="utf-8")), served, places)

    def close(self) -> None:
        if self._child is not None:
            self._child.close()
            self._child = None

    def __enter__(self) -> LmEval:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _probed(self, model: str) -> Served:
        if model not in self._served:
            served = probe(self._base_url, model)
            probe_completion(served)
            if self.task.config["output_type"] != "generate_until":
                probe_logprobs(served)
            self._served[model] = served
        return self._served[model]

    def _started(self) -> StandingChild:
        if self._child is None:
            folder = self._workdir / "task"
            folder.mkdir(parents=True, exist_ok=True)
            # JSON is YAML; lm-eval reads the task from a folder of its own, so no other task can shadow it
            (folder / f"{self.task.name}.yaml").write_text(json.dumps(self.task.config), encoding="utf-8")
            job = self._workdir / "job.json"
            job.write_text(json.dumps(self._job(folder)), encoding="utf-8")
            self._child = StandingChild(
                [sys.executable, "-m", "evals.lm_eval_worker", str(job)],
                cwd=ROOT,  # puts this checkout's `evals` before any other package of the name
                log=self._workdir / "lm_eval.log",
                # the data set cache of the user is neither read nor written
                set_env={**OFFLINE, "HF_DATASETS_CACHE": str(self._workdir / "datasets")},
                unset_env=UNSET,
            )
        return self._child

    def _job(self, task_folder: Path) -> dict[str, Any]:
        return {
            "base_url": self._base_url.rstrip("/"),
            "tokenizer": str(self._tokenizer.resolve()),
            "task": self.task.name,
            "task_folder": str(task_folder),
            "slices": self.task.slices,
            "cluster": self._setting.cluster,
            "dataset": str(self._dataset.resolve()),
            "system": self._prompt.system,
            "user": self._prompt.user,
            "metric": self._setting.metric,
            "num_concurrent": self._setting.num_concurrent,
            "batch_size": self._setting.batch_size,
        }

    def _read(self, found: dict[str, Any], served: Served, places: Sequence[int]) -> LmEvalRun:
        metric, had = self._setting.metric, found["metrics"]
        if metric not in had:
            raise SuiteInvalid(f"the task gives no metric {metric!r}; it gives {', '.join(had) or 'none'}")
        items = tuple(map(_item, found["items"]))
        if [item.id for item in items] != [self.items[place]["id"] for place in places]:
            raise LmEvalFailed(f"lm-eval gave {len(items)} results for {len(places)} items, or in another order")
        return LmEvalRun(
            served=served,
            task=self.task.name,
            task_version=self.task.version,
            task_sha256=self.task.sha256,
            template_sha256=found["template_sha256"],
            dataset_sha256=file_sha256(self._dataset),
            sampling=self._setting.sampling(self.task),
            metrics=tuple(sorted(had.items())),
            items=items,
            tool_versions=tuple(sorted(found["tool_versions"].items())),
        )

    def _why(self, ended: Finished | None, model: str) -> str:
        asked = f"lm-eval's {self.task.name} on {model!r}"
        if ended is None:
            return f"{asked} left no result in {self._workdir}; run it again"
        if ended.timed_out:
            return f"{asked} took more than {self._timeout_s:.0f} s and was stopped; raise the limit or ask fewer items"
        note = self._workdir / "result.error"
        reason = note.read_text(encoding="utf-8") if note.is_file() else ended.tail or "it said nothing"
        return f"{asked} ended with exit code {ended.returncode}: {reason}. The whole log is {self._workdir / 'lm_eval.log'}"


def _item(found: dict[str, Any]) -> ItemResult:
    slices = tuple((column, value) for column, value in found["slices"])
    return ItemResult(found["id"], found["score"], found["answer"], found["target"], slices, found["cluster"])
