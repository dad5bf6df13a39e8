"""The command line as a person meets it: a process, its two streams and its exit code. Wrong usage is never a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from typer.main import get_command

from flows.cli import app
from flows.help import GROUPS
from tasks.spec import load_release

ROOT = Path(__file__).parent.parent
NOWHERE = {  # all parts are set from outside, and none is there
    "LIFTLOCK_POSTGRES_DSN": "postgresql://127.0.0.1:1",
    **{
        f"LIFTLOCK_{part}": "http://127.0.0.1:1"
        for part in ("MLFLOW_URI", "PREFECT_API_URL", "VLLM_URL", "GATEWAY_URL", "GATEWAY_ADMIN_URL")
    },
}
COMMANDS = {"release", "init", "schema", "up", "down", "status", "logs"}


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def liftlock(tmp_path: Path) -> Run:
    """Runs the command in tmp_path, with its state there too."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("LIFTLOCK_", "PREFECT_"))}
    env = {**kept, "PYTHONPATH": str(ROOT), "LIFTLOCK_STATE": str(tmp_path / "state"), "COLUMNS": "100"}

    def run(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-P", "-m", "flows.cli", *arguments],
            cwd=tmp_path, env={**env, **more}, capture_output=True, text=True, timeout=180, check=False,
        )  # fmt: skip

    return run


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The one message of a run that ended with exit code 2."""
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("liftlock: ")
    assert "Traceback" not in done.stderr
    return done.stderr.removeprefix("liftlock: ").rstrip("\n")


def test_help_lists_the_commands(liftlock: Run) -> None:
    done = liftlock("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage: liftlock COMMAND")
    lines = done.stdout.splitlines()
    assert len(lines) <= 50 and max(map(len, lines)) <= 80  # one screen
    assert {name for group in GROUPS.values() for name in group} == set(get_command(app).commands)  # type: ignore[attr-defined]
    assert all(any(line[12:].startswith(f"{name} ") for line in lines) for name in COMMANDS)


def test_the_bare_command_prints_the_help_and_ends_with_2(liftlock: Run) -> None:
    done = liftlock()
    assert done.returncode == 2
    assert "Usage: liftlock COMMAND" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "liftlock: \n" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("release", "x.yaml", "--frehs"), "No such option: --frehs"),
        (("lunch",), "No such command 'lunch'."),
        (("relaese", "x.yaml"), "No such command 'relaese'. Did you mean 'release'?"),
        (("modelcar", "buld"), "No such command 'buld'. Did you mean 'build'?"),
        (("status", "--jsn"), "No such option: --jsn (Possible options: --json)"),
        (("release",), "Missing argument 'spec'."),
        (("init", "one", "two"), "Got unexpected extra argument(s) (two)"),
        (("logs", "vllm", "-n", "many"), "Invalid value for '--lines' / '-n'"),
        (("logs", "vllm", "-n", "0"), "Invalid value for '--lines' / '-n'"),
    ],
)
def test_wrong_usage_is_one_sentence(liftlock: Run, arguments: tuple[str, ...], said: str) -> None:
    assert refused(liftlock(*arguments)).startswith(said)


def test_a_release_of_nothing_is_refused_before_anything_starts(liftlock: Run, tmp_path: Path) -> None:
    said = refused(liftlock("release", "none.yaml"))
    assert said == "none.yaml: no such file; give the path of a release.yaml, or make one with `liftlock init DIR`"
    assert list(tmp_path.iterdir()) == []


def test_every_fault_of_a_spec_is_told_with_its_line(liftlock: Run, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(
        "name: X\nbase_model: m\ndataset: {train: a, test: b}\ngate: {task: c, prompts: d}\n"
    )
    lines = refused(liftlock("release", "r.yaml")).splitlines()
    assert [line.split(": ")[:2] for line in lines] == [
        ["r.yaml:1", "name"],
        ["r.yaml:4", "gate.prompt"],
        ["r.yaml:4", "gate.prompts"],
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.yaml"]


def test_init_writes_a_spec_that_loads_and_says_what_next(liftlock: Run, tmp_path: Path) -> None:
    done = liftlock("init", "my_model")
    assert done.returncode == 0
    assert done.stdout.splitlines()[0] == "my_model/release.yaml"
    assert all((tmp_path / line).is_file() for line in done.stdout.splitlines())
    assert "liftlock release my_model/release.yaml" in done.stderr
    assert load_release(tmp_path / "my_model" / "release.yaml").name == "my-model"
    assert refused(liftlock("init", "my_model")) == "my_model is not empty; give a new or empty folder"
    assert refused(liftlock("init", "9")).startswith("9 would call the model '9'; a name has 2 to 40 of")


def test_schema_is_one_json_document(liftlock: Run) -> None:
    done = liftlock("schema")
    assert (done.returncode, done.stderr) == (0, "")
    schema = json.loads(done.stdout)
    Draft202012Validator.check_schema(schema)
    assert set(schema["required"]) == {"name", "base_model", "dataset", "gate"}


def test_logs_prints_the_end_of_a_parts_log(liftlock: Run, tmp_path: Path) -> None:
    folder = tmp_path / "state" / "logs"
    folder.mkdir(parents=True)
    (folder / "vllm.log").write_text("one\ntwo\nthree\n")
    (folder / "envoy.log").write_text("")
    (tmp_path / "state" / "secret.log").write_text("not a part's")
    assert liftlock("logs", "vllm", "-n", "2").stdout == "two\nthree\n"
    assert refused(liftlock("logs", "lunch")) == "no log of a part named 'lunch'; logs: envoy, vllm"
    assert refused(liftlock("logs", "../secret")).startswith("no log of a part named '../secret'")


def test_logs_before_the_first_start_says_how_to_start(liftlock: Run) -> None:
    said = refused(liftlock("logs", "vllm"))
    assert said == "no log of a part named 'vllm'; logs: none yet; run `liftlock up`"


def test_an_exit_code_of_a_command_is_the_programs(tmp_path: Path) -> None:
    """`status` of a stack that was set up but does not run answers no part: exit 1, not 0."""
    root = Path(__file__).resolve().parent.parent
    (tmp_path / "ports.json").write_text(
        json.dumps(dict.fromkeys(("postgres", "mlflow", "prefect", "vllm", "envoy", "envoy-admin"), 1))
    )
    environment = {**os.environ, "LIFTLOCK_STATE": str(tmp_path), "PYTHONPATH": str(root)}
    argv = [sys.executable, "-m", "flows.cli", "status", "--json"]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=root, env=environment, timeout=60, check=False)
    assert done.returncode == 1, done.stderr
    assert {row["health"] for row in json.loads(done.stdout)["parts"]} == {"down"}


@pytest.mark.parametrize("arguments", [["schema"], ["--help"], ["status", "--json"], ["fit", "--help"]], ids=" ".join)
def test_a_reader_that_leaves_ends_the_command_quietly(tmp_path: Path, arguments: list[str]) -> None:
    """As `liftlock … | head` does. The reader is gone before the first byte, so the command cannot win the race."""
    env = {**os.environ, **NOWHERE, "PYTHONPATH": str(ROOT), "LIFTLOCK_STATE": str(tmp_path)}
    reading, writing = os.pipe()
    os.close(reading)
    argv = [sys.executable, "-P", "-m", "flows.cli", *arguments]
    done = subprocess.run(argv, stdout=writing, stderr=subprocess.PIPE, text=True, env=env, timeout=180, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_name_that_none_can_have_starts_no_stack(liftlock: Run, tmp_path: Path) -> None:
    assert "names no version; give NAME, NAME@alias" in refused(liftlock("promote", "../x", "--to", "staging"))
    assert not (tmp_path / "state").exists()


def test_a_rollback_without_mlflow_says_that_mlflow_is_away(liftlock: Run) -> None:
    """It said that there is no such version, which nobody can know then."""
    done = liftlock("rollback", "ticket-router", "--to", "3", **NOWHERE)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(
        "liftlock: ticket-router version 3 cannot be looked up: MLflow at http://127.0.0.1:1 does not answer"
    )
    assert "start it (`liftlock up`), then run this again" in done.stderr
