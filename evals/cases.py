"""A suite's promptfoo cases asked of one model: all at once or some at a time, and kept case by case. Effect.

A case that errored is not kept: it says nothing, and is asked again by the next run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from evals.gate_blocks import Placed
from evals.promptfoo_runner import list_cases, run_promptfoo
from evals.report import PromptCase
from evals.suite import Suite


def placed_cases(suite: Suite) -> tuple[Placed, ...]:
    """In the file's order, each group a stratum; empty where the suite has none. Raises SuiteInvalid."""
    if suite.promptfoo_yaml is None:
        return ()
    return tuple(
        Placed(name, name, (("group", group),)) for name, group in list_cases(suite.promptfoo_yaml, suite.prompt)
    )


@dataclass
class Cases:
    """`promptfoo` is the program, `base_url` ends in /v1; `kept` is a file for what was answered, None keeps nothing."""

    suite: Suite
    model: str
    promptfoo: Path
    base_url: str
    kept: Path | None
    version: str = ""
    found: dict[str, PromptCase] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kept is not None and self.kept.exists():
            known = json.loads(self.kept.read_text(encoding="utf-8"))
            self._known, self.version = {one["id"]: PromptCase(**one) for one in known["cases"]}, known["version"]
        else:
            self._known = dict[str, PromptCase]()

    def ask(self, ids: Sequence[str], workdir: Path, progress: Callable[[int], None]) -> None:
        """What is not known of `ids`. Raises what run_promptfoo raises."""
        assert self.suite.promptfoo_yaml is not None  # noqa: S101 - a suite without cases has no ids
        self.found |= {name: self._known[name] for name in ids if name in self._known}
        left = [name for name in ids if name not in self.found]
        progress(len(ids) - len(left))
        if not left:
            return
        cases, _, self.version = run_promptfoo(
            self.suite.promptfoo_yaml,
            promptfoo=self.promptfoo,
            base_url=self.base_url,
            model=self.model,
            prompt=self.suite.prompt,
            workdir=workdir,
            progress=lambda done, _: progress(len(ids) - len(left) + done),
            only=left,
        )
        self.found |= {case.id: case for case in cases}
        self._keep()

    def in_order(self) -> tuple[PromptCase, ...]:
        """Those that were asked, in the file's order."""
        return tuple(self.found[one.id] for one in placed_cases(self.suite) if one.id in self.found)

    def _keep(self) -> None:
        if self.kept is None:
            return
        self._known |= {name: case for name, case in self.found.items() if not case.errored}
        self.kept.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.kept.with_suffix(".new")
        cases = [asdict(case) for case in self._known.values()]
        temporary.write_text(json.dumps({"version": self.version, "cases": cases}), encoding="utf-8")
        temporary.replace(self.kept)
