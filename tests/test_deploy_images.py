"""deploy/images without a builder: there is none here, so what a Containerfile says is checked, and what it copies is run.

The images that deploy/ runs are pinned by digest, or told by whoever meets them first.

Not checked: that the base image exists, and the time and size of a build.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.exit_codes import code_of
from tasks.stack.deployments import TEMPLATE, ImageUnpinned, check_image

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


NOT_SET = {  # no digest is known here; who says so before a pod is made
    "liftlock-flows": "kustomize's `images` names it",
    "registry.example.com/liftlock/flows:digest-not-set": "doctor --cluster",
    "us-central1-docker.pkg.dev/example-project/liftlock/flows:digest-not-set": "doctor --cluster",
    "registry.example.com/liftlock/training:digest-not-set": "liftlock deploy --pool kubernetes; deploy/policies for deploy/rag",
    "registry.k8s.io/gateway-api-inference-extension/epp:v1.5.0": "liftlock render and deliver",
}


def images(document: Any) -> Iterator[str]:
    """Of every key that names one, and of kustomize's list of images."""
    for key, value in document.items() if isinstance(document, dict) else ():
        if key in ("image", "imageName", "engine_image", "picker_image") and isinstance(value, str):
            yield value
        if key == "images" and isinstance(value, list):
            yield from (
                f"{one['newName']}@{one['digest']}" if "digest" in one else f"{one['newName']}:{one['newTag']}"
                for one in value
                if "newName" in one
            )
    for value in document.values() if isinstance(document, dict) else document if isinstance(document, list) else ():
        yield from images(value)


def test_every_image_of_deploy_is_pinned_or_told_by_name() -> None:
    files = [one for one in (ROOT / "deploy").rglob("*.yaml") if "policies" not in one.parts]
    found = {image for file in files for document in yaml.safe_load_all(file.read_text()) for image in images(document)}
    found.add(json.loads(TEMPLATE.read_text())["variables"]["properties"]["image"]["default"])
    pinned = {image for image in found if re.search(r"@sha256:[0-9a-f]{64}$", image)}
    assert len(pinned) >= 3 and found - pinned == set(NOT_SET)


def test_a_pool_whose_jobs_have_no_digest_is_not_registered() -> None:
    text = TEMPLATE.read_text()
    with pytest.raises(ImageUnpinned, match="digest-not-set, required HOST/REPOSITORY@sha256") as refused:
        check_image(text)
    assert code_of(refused.value) == 2
    check_image(text.replace("training:digest-not-set", f"training@sha256:{'a' * 64}"))
