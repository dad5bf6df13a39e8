"""A team's Git repository with one suite, and an endpoint whose model answers as well as its prompt is written.

The endpoint is the scripted one: a model cannot be made better or worse on purpose in seconds. All else is real: git, the
command, lm-eval and the tokenizer that turns prompts into the token ids which the endpoint reads.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from tests.fix_endpoint import ScriptedEndpoint
from tests.fix_stack import ROOT, SUITE

MODEL = ROOT / ".toolchain" / "models" / "SmolLM2-135M-Instruct"
PLAIN, BETTER, WORSE = "Name the team.", "Name the one team that owns the ticket.", "Say something nice."
RIGHT = {PLAIN: 55, BETTER: 97, WORSE: 8}  # of 100 tickets that a prompt gets right
ITEMS = 80
SPEC = """\
name: tickets
base_model: SmolLM2-135M-Instruct
dataset: {train: data/train.jsonl, test: data/test.jsonl, answer: team, slices: [team]}
gate: {task: task.yaml, prompt: prompt.yaml, rule: non_inferior, margin: 0.1, min_items: 40}
"""


@dataclass
class Repo:
    """A repository whose main branch has the suite `suites/tickets`; `write` commits files on a branch from main."""

    folder: Path
    suite: str = "suites/tickets"

    def git(self, *arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(self.folder), *arguments], capture_output=True, text=True, env=GIT, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def write(self, branch: str, files: dict[str, str | None]) -> str:
        """`files` by path in the suite's folder; None removes one. Returns the commit."""
        self.git("checkout", "-q", "-B", branch, "main")
        for name, content in files.items():
            path = self.folder / self.suite / name
            if content is None:
                path.unlink()
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(content, encoding="utf-8")
        self.git("add", "-A")
        self.git("commit", "-q", "-m", branch)
        self.git("checkout", "-q", "main")
        return self.git("rev-parse", branch)


GIT = {
    **{key: value for key, value in os.environ.items() if not key.startswith("GIT_")},
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
    **{f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in (("NAME", "T"), ("EMAIL", "t@example.org"))},
}  # fmt: skip


def prompt(system: str) -> str:
    return f'system: {json.dumps(system)}\nuser: "{{{{ticket}}}}"\n'


def pin(sha256: str = "a" * 64, model: str = "tickets") -> str:
    return f"model: {model}\nsha256: {sha256}\n"


def tickets(count: int = ITEMS) -> list[dict[str, str]]:
    lines = (SUITE / "data" / "test.jsonl").read_text(encoding="utf-8").splitlines()[:count]
    return [json.loads(line) for line in lines]


def lines(items: list[dict[str, str]]) -> str:
    return "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items)


def make_repo(folder: Path) -> Repo:
    """The training data is not in it, as in many teams' repositories."""
    suite = folder / "suites" / "tickets"
    (suite / "data").mkdir(parents=True)
    (suite / "release.yaml").write_text(SPEC)
    (suite / "task.yaml").write_text((SUITE / "ticket_router.yaml").read_text())
    (suite / "prompt.yaml").write_text(prompt(PLAIN))
    (suite / "adapter.yaml").write_text(pin())
    (suite / "data" / "test.jsonl").write_text(lines(tickets()), encoding="utf-8")
    (folder / "README.md").write_text("A team's repository.\n")
    repo = Repo(folder)
    repo.git("init", "-q", "-b", "main")
    repo.git("add", "-A")
    repo.git("commit", "-q", "-m", "start")
    return repo


@lru_cache(maxsize=1)
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(MODEL))


def is_right(ticket: str, system: str) -> bool:
    """The same ticket is easy or hard for every prompt, so a better prompt gets right what a worse one does, and more."""
    return int(hashlib.sha256(ticket.encode()).hexdigest(), 16) % 100 < RIGHT.get(system, 0)


@dataclass
class Answering:
    """Answers token ids: the ticket's team where the prompt is good enough for it, else "nobody"."""

    teams: dict[str, str] = field(default_factory=lambda: {item["ticket"]: item["team"] for item in tickets()})

    def __call__(self, model: str, ids: list[int] | str) -> str:
        if isinstance(ids, str):
            return ""  # the request by which an adapter is loaded
        _, *turns = tokenizer().decode(ids).split("<|im_start|>")
        if len(turns) < 2:
            return ""  # the probe's three tokens
        system, ticket = (turn.partition("\n")[2].removesuffix("<|im_end|>\n") for turn in turns[:2])
        return self.teams.get(ticket, "?") if is_right(ticket, system) else "nobody"


def endpoint(complete: Callable[[str, list[int]], str] | None = None) -> ScriptedEndpoint:
    tokenizer()  # loaded before anybody waits for an answer
    return ScriptedEndpoint(models=("tickets", "tickets-next"), complete=complete or Answering(), chat=chat)


def chat(model: str, sent: list[dict[str, str]]) -> str:
    """To promptfoo, as to lm-eval."""
    system, ticket = (message["content"] for message in sent)
    return Answering().teams.get(ticket, "?") if is_right(ticket, system) else "nobody"


def add_cases(repo: Repo) -> tuple[str, str]:
    """promptfoo cases on main: one that the worse prompt keeps right, and one that it gets wrong. Their ids."""
    kept, lost = (
        next(item for item in tickets() if is_right(item["ticket"], PLAIN) and is_right(item["ticket"], WORSE) == stays)
        for stays in (True, False)
    )
    cases = [
        {
            "metadata": {"id": name, "group": "drill"},
            "vars": {"ticket": item["ticket"]},
            "assert": [{"type": "equals", "value": item["team"]}],
        }
        for name, item in (("kept", kept), ("lost", lost))
    ]
    folder = repo.folder / repo.suite
    (folder / "promptfoo.yaml").write_text(json.dumps({"tests": cases}), encoding="utf-8")
    (folder / "release.yaml").write_text(SPEC.replace("min_items: 40", "min_items: 40, cases: promptfoo.yaml"))
    repo.git("add", "-A")
    repo.git("commit", "-q", "-m", "cases")
    return "kept", "lost"


def completions(asked: ScriptedEndpoint) -> int:
    """Items asked; without the one token of each run's probe."""
    return sum(path == "/v1/completions" and body.get("max_tokens") != 1 for path, body in asked.asked)
