"""Whatever a command is given, it ends with a documented code and a sentence, and leaves what it did not make as it was."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from evals.prompt import load_prompt
from evals.promptfoo_runner import list_cases
from evals.suite import load_items, resolve_task
from flows.cli import said
from tasks.dataset import read_dataset
from tasks.settings import Settings, get_settings
from tasks.spec import load_release
from tests.fix_coherence import coherent, written
from tests.fix_fit import write_adapter, write_model
from tests.fix_hostile_cli import COMMANDS, ended
from tests.fix_manifests import container, deployment, pod_spec
from tests.fix_manifests import write as write_manifests
from tests.fix_modelcar import build
from tests.hostile_inputs import TEXTS, arena, arguments, changed

ROOT = Path(__file__).parent.parent
SUITE = ROOT / "evals" / "ticket_router"
DOCUMENTED = (0, 2, 3, 4)
UNREACHED = (
    "see that the registry runs",
    "see that they can be reached",
)  # good words for a server that is not there: 1
EACH = int(os.environ.get("HOSTILE_INPUTS", "8"))  # for a command; `make fuzz` gives many more


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(one): one.read_bytes() for one in folder.rglob("*") if one.is_file()}


def faults(given: list[str], folder: Path, before: dict[str, bytes]) -> Iterator[str]:
    """What is wrong with the end of a command, in words."""
    code, sentence = ended(given)
    shown = f"liftlock {' '.join(given)!r:.300} ended with {code}: {sentence:.200}"
    if code not in DOCUMENTED and not any(words in sentence for words in UNREACHED):
        yield shown
    if code == 2 and (not sentence.strip() or "Traceback" in sentence):
        yield f"no sentence: {shown}"
    if code == 2 and (after := snapshot(folder)) != before:
        odd = sorted(key for key in after.keys() | before.keys() if after.get(key) != before.get(key))
        yield f"half-written {odd}: {shown}"


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_arguments_that_nobody_should_give(place: Path, words: tuple[str, ...]) -> None:
    dice, command = random.Random(" ".join(words)), COMMANDS[words]
    arena(place)
    before, found = snapshot(place), list[str]()
    for _ in range(EACH):
        found += faults([*words, *arguments(command, dice)], place, before)
        before = snapshot(place)
    assert not found, "\n".join(found)
    assert not [one for one in place.parent.rglob("*") if "PWNED" in one.name]


def _suite(folder: Path) -> list[str]:
    for name in ("release.yaml", "prompt.yaml", "ticket_router.yaml", "promptfoo.yaml"):
        shutil.copy(SUITE / name, folder / name)
    spec = (folder / "release.yaml").read_text()
    (folder / "release.yaml").write_text(spec.partition("\nsample:")[0] + "\n")  # its documents lie elsewhere
    (folder / "data").mkdir()
    for name in ("train", "test", "replay"):
        if (SUITE / "data" / f"{name}.jsonl").exists():
            lines = (SUITE / "data" / f"{name}.jsonl").read_text().splitlines(keepends=True)[:12]
            (folder / "data" / f"{name}.jsonl").write_text("".join(lines))
    return ["release", "release.yaml"]


def _results(folder: Path) -> list[str]:
    for name in ("one.jsonl", "two.jsonl"):
        rows = [{"id": str(number), "score": number % 2, "group": "a"} for number in range(8)]
        (folder / name).write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return ["gate", "compare", "one.jsonl", "two.jsonl", "--cluster", "group", "--html", "out.html"]


def _chain(folder: Path) -> list[str]:
    written(folder, coherent())
    return ["coherence", ".", "--json"]


def _rendered(folder: Path) -> list[str]:
    write_model(folder / "models" / "m")
    write_manifests(folder, deployment(pod_spec(container("serve", "/models/m"))))
    return ["fit", "--manifests", ".", "--model-root", "models", "--gpu", "nvidia-l4"]


def _model(folder: Path) -> list[str]:
    write_model(folder / "model")
    write_adapter(folder / "adapter")
    return ["fit", "model", "--adapter", "adapter", "--gpu", "nvidia-l4"]


def _image(folder: Path) -> list[str]:
    build(folder, "v1")
    return ["modelcar", "inspect", "oci:layout:v1", "--files"]


def _packed(folder: Path) -> list[str]:
    build(folder, "v1")
    return ["modelcar", "build", "base", "--adapter", "adapter-1.0", "--adapter-name", "r", "--no-shell"]


READ = {"release": _suite, "gate compare": _results, "coherence": _chain, "fit --manifests": _rendered, "fit": _model,
        "modelcar inspect": _image, "modelcar build": _packed}  # fmt: skip


@pytest.mark.parametrize("reader", READ)
def test_a_good_file_that_was_changed(place: Path, reader: str) -> None:
    """One of the files that the command reads is cut, hit by random bytes or tokens, or has one value of another kind."""
    dice, given = random.Random(reader), READ[reader](place)
    files, found = sorted(one for one in place.rglob("*") if one.is_file() and one.stat().st_size), list[str]()
    assert ended(given)[0] in (0, 2, 3), "the unchanged files are no error of the machine"
    for _ in range(2 * EACH):
        file = dice.choice(files)
        good = file.read_bytes()
        file.write_bytes(changed(good, dice))
        found += [f"{file.name}: {one}" for one in faults(given, place, snapshot(place))]
        file.write_bytes(good)
    assert not found, "\n".join(found)


def test_a_setting_that_cannot_be(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings are read by a command that reaches for none of the addresses."""
    dice, found = random.Random(1), list[str]()
    for name in Settings.model_fields.keys() - {"state", "toolchain"}:
        with monkeypatch.context() as patch:
            patch.setenv(f"LIFTLOCK_{name.upper()}", dice.choice(TEXTS))
            get_settings.cache_clear()
            found += [f"{name}: {one}" for one in faults(["apikey", "list"], place, snapshot(place))]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("seed", range(3))
def test_a_suite_that_was_changed_is_read_or_refused(place: Path, seed: int) -> None:
    """What a release and a gate read of it before anything runs: spec, prompt, task, data and cases."""
    _suite(place)
    dice, files = random.Random(seed), sorted(one for one in place.rglob("*") if one.is_file())
    read_suite(place)
    for _ in range(5 * EACH):
        file = dice.choice(files)
        good = file.read_bytes()
        file.write_bytes(changed(good, dice))
        try:
            read_suite(place)
        except Exception as error:  # noqa: BLE001 - every one is judged
            assert said(error, [])[0] == 2, f"{file.name}: {type(error).__name__}: {error}"
        file.write_bytes(good)


def read_suite(folder: Path) -> None:
    spec = load_release(folder / "release.yaml")
    read_dataset(spec)
    resolve_task(spec.gate.task, spec.dataset.test, load_prompt(spec.gate.prompt))
    load_items(spec.dataset.test)
    if spec.gate.cases:
        list_cases(spec.gate.cases, load_prompt(spec.gate.prompt))
