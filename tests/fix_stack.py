"""The whole product on a state folder of its own: the commands as a user runs them, and the local stack they start.

`stack` lasts for the session; it is started by the first test that asks for it and taken down at the end. `champion` and
`takeover` are the releases that all tests share.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.fix_caller import Caller
from tests.fix_canaries import ENVIRONMENT

ROOT = Path(__file__).resolve().parent.parent
SUITE = ROOT / "evals" / "ticket_router"
NAME = "quick"  # of the model that has two versions
TICKET = "The parcel has sat in the depot for nine days."
COMMAND_SECONDS = 2700  # to give up after: a first release on two old cores takes a third of it


@dataclass(frozen=True)
class Stack:
    """A state folder and the commands on it."""

    state: Path

    @property
    def environment(self) -> dict[str, str]:
        kept = {
            key: value for key, value in os.environ.items() if not key.startswith(("LIFTLOCK_", "PREFECT_", "MLFLOW_"))
        }
        own = {"LIFTLOCK_STATE": str(self.state), "PYTHONPATH": str(ROOT), "COLUMNS": "160"}
        return {**kept, **ENVIRONMENT, **own}

    @property
    def argv(self) -> list[str]:
        return [str(ROOT / ".venv" / "bin" / "python"), "-m", "flows.cli"]

    def run(self, *arguments: str, timeout: float = COMMAND_SECONDS) -> subprocess.CompletedProcess[str]:
        """`liftlock ARGUMENTS`."""
        return subprocess.run(
            [*self.argv, *arguments],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env=self.environment,
            timeout=timeout,
            check=False,
        )

    def make(self, *targets: str, timeout: float = COMMAND_SECONDS) -> subprocess.CompletedProcess[str]:
        environment = {
            key: value for key, value in self.environment.items() if key not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")
        }
        return subprocess.run(
            ["make", *targets], capture_output=True, text=True, cwd=ROOT, env=environment, timeout=timeout, check=False
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """`liftlock ARGUMENTS` in the background, in a process group of its own."""
        return subprocess.Popen(
            [*self.argv, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
            env=self.environment,
            start_new_session=True,
        )

    def ports(self) -> dict[str, int]:
        return dict(json.loads((self.state / "ports.json").read_text()))

    @property
    def gateway(self) -> str:
        return f"http://127.0.0.1:{self.ports()['envoy']}"

    def ask(self, model: str) -> str:
        """What the gateway's model says to a ticket for the team shipping."""
        messages = [{"role": "system", "content": "Name the team."}, {"role": "user", "content": TICKET}]
        body = {"model": model, "messages": messages, "max_tokens": 8, "temperature": 0}
        answer = httpx.post(f"{self.gateway}/v1/chat/completions", json=body, timeout=60).raise_for_status()
        return str(answer.json()["choices"][0]["message"]["content"])

    def pid_of(self, command: str) -> int:
        """The supervised process of this stack whose command line holds `command`."""
        ports = {str(port) for port in self.ports().values()}
        for process in psutil.process_iter(["cmdline", "environ"]):
            words, environment = process.info["cmdline"] or (), process.info["environ"] or {}
            named = str(self.state) in " ".join(words) or any(port in words for port in ports)
            if command in " ".join(words) and (named or environment.get("LIFTLOCK_STATE") == str(self.state)):
                return int(process.pid)
        raise AssertionError(f"no process {command}")

    def last_run(self) -> dict[str, Any]:
        newest = max((self.state / "runs").glob("*/run.json"), key=lambda file: file.stat().st_mtime)
        return dict(json.loads(newest.read_text()))


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    if not (ROOT / ".toolchain" / "stamps" / "vLLM").exists():
        pytest.skip("make setup has not run")
    folder = Path(tempfile.mkdtemp(prefix="liftlock-test-"))
    folder.chmod(0o755)
    made = Stack(folder / "state")
    yield made
    made.run("down", timeout=120)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def champion(stack: Stack) -> dict[str, Any]:
    """The README's command, once for all tests."""
    done = stack.make("release")
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return {**stack.last_run(), "stdout": done.stdout, "stderr": done.stderr}


def quick_spec(folder: Path, name: str, *, seed: int = 0, items: int = 64) -> Path:
    """A release of a minute: little training, few test items, no cases, and gates that such a model can pass."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = (SUITE / "data" / "test.jsonl").read_text().splitlines()[:items]
    (folder / "test.jsonl").write_text("\n".join(lines) + "\n")
    spec = folder / "release.yaml"
    spec.write_text(
        f"""
name: {name}
base_model: SmolLM2-135M-Instruct
dataset:
  train: {SUITE}/data/train.jsonl
  test: test.jsonl
  answer: team
  slices: [team]
training: {{r: 8, first_layer: 15, learning_rate: 0.003, num_train_epochs: 0.1, per_device_train_batch_size: 8, seed: {seed}}}
gate: {{task: {SUITE}/ticket_router.yaml, prompt: {SUITE}/prompt.yaml, margin: 0.5, min_items: {items}}}
serving: {{max_lora_rank: 8}}
delivery: {{steps: [50, 100], min_requests: 4, max_first_token_ratio: 20, warmup_requests: 2}}
"""
    )
    return spec


@dataclass(frozen=True)
class Takeover:
    """Two versions of the model NAME, the new one released while a client asked for it; `spec` is the new one's."""

    spec: Path
    old: str
    new: str
    answered: int
    failed: list[str]


@pytest.fixture(scope="session")
def takeover(stack: Stack, champion: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Takeover:
    return release_two(stack, tmp_path_factory.mktemp("takeover"))


def release_two(stack: Stack, folder: Path) -> Takeover:
    first, second = (quick_spec(folder / str(seed), NAME, seed=seed, items=32) for seed in (0, 1))
    done = stack.run("release", str(first))
    assert done.returncode == 0, done.stderr
    old = stack.last_run()["champion"]["version"]
    with Caller(stack.gateway, NAME, rate=2) as caller:  # the training beside it wants the cores too
        done = stack.run("release", str(second))
    assert done.returncode == 0, done.stderr
    return Takeover(second, old, stack.last_run()["champion"]["version"], caller.answered, caller.failed)
