"""A base model's folder that wants code to run: training reads it, and runs nothing of it."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.lora import LoraRequest, train_lora
from tests.fix_tiny_training import LEARNED, write_dialogs

pytestmark = pytest.mark.slow
ESCAPES = (
    "{{{{ cycler.__init__.__globals__.os.popen('touch {mark}').read() }}}}",
    "{{{{ messages.__class__.__base__.__subclasses__()[0].__init__.__globals__['__builtins__']['open']('{mark}', 'w') }}}}",
    "{{{{ raise_exception.__globals__['os'].system('touch {mark}') }}}}",
)


class Touch:
    """Unpickled, it makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.mark}",)


def change(file: Path, **values: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def template(number: int) -> Callable[[Path, Path], None]:
    def write(folder: Path, mark: Path) -> None:
        (folder / "chat_template.jinja").write_text(ESCAPES[number].format(mark=mark))

    return write


def pickled(folder: Path, mark: Path) -> None:
    """Beside a file that is safetensors by name."""
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Touch(mark)))


def own_code(**autos: str) -> Callable[[Path, Path], None]:
    def write(folder: Path, mark: Path) -> None:
        (folder / "evil.py").write_text(f"open({str(mark)!r}, 'w')\nclass Evil: pass\n")
        for file, auto in autos.items():
            change(folder / file, auto_map={auto: "evil.Evil"})

    return write


def unknown_kind(folder: Path, mark: Path) -> None:
    own_code(**{"config.json": "AutoConfig"})(folder, mark)
    change(folder / "config.json", model_type="evil", architectures=["Evil"])


HOSTILE: dict[str, tuple[Callable[[Path, Path], None], bool]] = {  # what is planted, and whether training has to fail
    "template that reaches for os": (template(0), True),
    "template that climbs classes": (template(1), True),
    "template that uses a helper's globals": (template(2), True),
    "pickled weights": (pickled, True),
    "code for model and tokenizer": (
        own_code(**{"config.json": "AutoModelForCausalLM", "tokenizer_config.json": "AutoTokenizer"}),
        False,
    ),
    "code for an unknown kind": (unknown_kind, True),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_nothing_of_a_hostile_base_model_runs(tiny_base: Path, tmp_path: Path, name: str) -> None:
    plant, fails = HOSTILE[name]
    base, mark = tmp_path / "tiny", tmp_path / "MARK"
    shutil.copytree(tiny_base, base)
    plant(base, mark)
    request = LoraRequest(
        base=str(base), dialogs=str(write_dialogs(tmp_path)), out=str(tmp_path / "adapter"), checkpoint="",
        **{**LEARNED, "num_train_epochs": 0.2},
    )  # fmt: skip
    try:
        train_lora(request)  # here and not in its child, which would import torch anew each time
        failed = False
    except Exception:  # noqa: BLE001 - whichever library refuses it
        failed = True
    assert not mark.exists()
    assert failed or not fails
    assert (tmp_path / "adapter" / "adapter_model.safetensors").exists() is not failed
