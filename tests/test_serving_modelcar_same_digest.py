"""One model, one digest: whoever owns the files, whenever they were made, under whatever umask, order and Python."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from serving.modelcar import manifest, model_layers
from serving.modelcar.image import sha256_digest
from tests.fix_modelcar import make_adapter, make_base

ROOT = Path(__file__).parent.parent
BUILD = """
import sys
from pathlib import Path
from serving.modelcar import manifest, model_layers
from serving.modelcar.image import sha256_digest
layers = model_layers(Path(sys.argv[1]), Path(sys.argv[2]), "router")
print(sha256_digest(manifest(layers, {"b": "2", "a": "1"})[1]))
"""


def digest_of(base: Path, adapter: Path) -> str:
    return sha256_digest(manifest(model_layers(base, adapter, "router"), {"a": "1", "b": "2"})[1])


def pythons() -> list[str]:
    """Other versions from 3.11 on: on PATH, or of pyenv."""
    roots = [Path(where) for where in os.environ.get("PATH", "").split(os.pathsep)]
    roots += sorted((Path.home() / ".pyenv" / "versions").glob("*/bin"))
    found: dict[str, str] = {}
    for root in roots:
        for minor in range(11, 16):
            program = root / f"python3.{minor}"
            if "shims" not in root.parts and program.is_file() and minor != sys.version_info.minor:
                found.setdefault(f"3.{minor}", str(program))
    return [found[name] for name in sorted(found)] or [""]


@pytest.mark.parametrize("python", pythons())
def test_other_python_versions_give_the_same_digest(tmp_path: Path, python: str) -> None:
    if not python:
        pytest.skip("no other Python from 3.11 on is installed")
    base, adapter = make_base(tmp_path / "base"), make_adapter(tmp_path / "adapter")
    environment = {
        "PYTHONPATH": str(ROOT),
        "PYTHONHASHSEED": "7",
        "TZ": "Asia/Tokyo",
        "LC_ALL": "C",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(
        [python, "-c", BUILD, str(base), str(adapter)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == digest_of(base, adapter)


def test_other_owners_times_modes_and_order_give_the_same_digest(tmp_path: Path) -> None:
    base, adapter = make_base(tmp_path / "base"), make_adapter(tmp_path / "adapter")
    before = os.umask(0o077)
    try:
        other = tmp_path / "elsewhere" / "under another name"
        for path in sorted(base.rglob("*"), key=lambda path: path.name, reverse=True):
            if path.is_file():
                copy = other / path.relative_to(base)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)
                os.utime(copy, ns=(1, 1_500_000_000_000_000_001))
                copy.chmod(0o400 if path.suffix == ".json" else 0o755)
    finally:
        os.umask(before)
    if os.geteuid() == 0:
        for path in other.rglob("*"):
            os.chown(path, 65534, 1234)
    assert digest_of(other, adapter) == digest_of(base, adapter)


def test_a_hugging_face_snapshot_gives_the_digest_of_its_plain_copy(tmp_path: Path) -> None:
    base, adapter = make_base(tmp_path / "base"), make_adapter(tmp_path / "adapter")
    cache = tmp_path / "models--org--name"
    (cache / "blobs").mkdir(parents=True)
    snapshot = cache / "snapshots" / "0123abcd"
    for number, path in enumerate(
        sorted(path for path in base.rglob("*") if path.is_file() and ".cache" not in path.parts)
    ):
        (cache / "blobs" / f"{number:040}").write_bytes(path.read_bytes())
        link = snapshot / path.relative_to(base)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(cache / "blobs" / f"{number:040}", link.parent))
    assert digest_of(snapshot, adapter) == digest_of(base, adapter)
