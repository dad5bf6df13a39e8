"""deploy/images without a builder: there is none here, so what a Containerfile says is checked, and what it copies is run.

Not checked: that the base image exists, and the time and size of a build.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "deploy" / "images"
NAMES = ("flow-worker", "training")
TRAINING_ONLY = ("torch", "transformers", "trl", "peft", "datasets", "sentence_transformers", "lm_eval", "accelerate")
# Run with packages that the image does not have made unfindable.
WITHOUT = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
import flows.cli
assert flows.cli.__file__.startswith({root!r}), flows.cli.__file__
sys.argv = ["liftlock", *{arguments}]
flows.cli.main()
"""


def instructions(name: str) -> list[tuple[str, str]]:
    """(word, rest) of each, continued lines joined."""
    lines = [line for line in (IMAGES / name / "Containerfile").read_text().splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in joined.splitlines()) if word]


def copied(name: str, target: Path) -> None:
    for word, rest in instructions(name):
        if word == "COPY":
            *sources, place = rest.split()
            for source in sources:
                where = target / place / (Path(source).name if place.endswith("/") else "")
                where.parent.mkdir(parents=True, exist_ok=True)
                if (ROOT / source).is_dir():
                    kept = shutil.ignore_patterns("__pycache__")
                    shutil.copytree(ROOT / source, where, ignore=kept, dirs_exist_ok=True)
                else:
                    shutil.copy(ROOT / source, where)


@pytest.mark.parametrize("name", NAMES)
def test_a_base_is_pinned_or_must_be_named(name: str) -> None:
    read = instructions(name)
    arguments = [rest for word, rest in read if word == "ARG"]
    bases = [rest for word, rest in read if word == "FROM"]
    assert bases and all(re.fullmatch(r"\$\{[A-Z]+\}|\S+@sha256:[0-9a-f]{64}", base) for base in bases)
    assert all("=" not in argument for argument in arguments)  # a default would be a tag, or a digest nobody looked at


@pytest.mark.parametrize("name", NAMES)
def test_it_ends_as_the_user_of_the_pods_and_needs_no_privilege(name: str) -> None:
    read = instructions(name)
    assert [rest for word, rest in read if word == "USER"][-1] == "65532:65532"
    assert not {"ADD", "VOLUME"} & {word for word, _ in read}
    runs = " ".join(rest for word, rest in read if word == "RUN")
    assert not re.search(r"--mount|--privileged|--security|\b(apt|apt-get|sudo|mknod|mount|curl|wget)\b", runs)


def test_every_package_of_the_image_has_one_version() -> None:
    pinned = {line.partition("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line}
    own = [line for line in (IMAGES / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
    assert own and all(re.fullmatch(r"[\w-]+==[\w.]+", line) for line in own)
    (install,) = [rest for word, rest in instructions("flow-worker") if word == "RUN" and "pip install" in rest]
    named = [word.strip("'") for word in install.partition("requirements.txt")[2].split()]
    assert len(named) > 10
    assert {re.split(r"[\[<]", word)[0].lower() for word in named} <= {name.lower() for name in pinned}


@pytest.mark.parametrize("arguments", [["--help"], ["deploy", "--help"]])
def test_what_is_copied_runs_without_what_trains(tmp_path: Path, arguments: list[str]) -> None:
    copied("flow-worker", tmp_path)
    program = WITHOUT.format(absent=TRAINING_ONLY, root=str(tmp_path), arguments=arguments)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "LIFTLOCK_STATE": str(tmp_path / "state")}
    done = subprocess.run(
        [sys.executable, "-P", "-c", program],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        timeout=120,
    )
    assert done.returncode == 0 and "Usage: liftlock" in done.stdout, done.stderr


def scripts(folder: Path) -> None:
    """The commands that the image makes, made here by the same lines."""
    (made,) = [rest for word, rest in instructions("flow-worker") if word == "RUN" and "printf" in rest]
    subprocess.run(["sh", "-c", made.replace("/opt/venv/bin", str(folder))], check=True)


def test_the_images_commands_are_executable_and_name_our_modules(tmp_path: Path) -> None:
    scripts(tmp_path)
    for path in tmp_path.iterdir():
        assert path.stat().st_mode & stat.S_IXOTH
        module = re.search(r"-m (\S+)", path.read_text())
        assert module and (ROOT / f"{module[1].replace('.', '/')}.py").is_file()
    assert {path.name for path in tmp_path.iterdir()} == {"liftlock", "docker-credential-workload-identity"}
