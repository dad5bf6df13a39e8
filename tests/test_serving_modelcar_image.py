"""An image's digest is a function of the model's names and bytes, and its tars are what Python's tarfile reads back."""

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.modelcar import Layer, ModelChanged, manifest, model_layers
from serving.modelcar.source import SourceFile, base_files
from tests.fix_modelcar import make_adapter, make_base

ROOT = Path(__file__).parent.parent
BUILD = """
import sys
from pathlib import Path
from serving.modelcar import manifest, model_layers
layers = model_layers(Path(sys.argv[1]), Path(sys.argv[2]), "router")
sys.stdout.buffer.write(manifest(layers, {"b": "2", "a": "1"})[1])
"""


def image_of(base: Path, adapter: Path) -> tuple[bytes, bytes]:
    return manifest(model_layers(base, adapter, "router"), {"a": "1", "b": "2"})


def content(layer: Layer) -> bytes:
    return b"".join(layer.stream())


def disguise(folder: Path, copy: Path) -> Path:
    """A copy with other times, modes and order of creation."""
    for path in sorted(folder.rglob("*"), reverse=True):
        target = copy / path.relative_to(folder)
        if path.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
            target.chmod(0o700)
            os.utime(target, ns=(1, 1_600_000_000_000_000_001))
    return copy


def test_the_digest_does_not_know_times_modes_or_order(tmp_path: Path) -> None:
    base, adapter = make_base(tmp_path / "base"), make_adapter(tmp_path / "adapter")
    before = os.umask(0o077)
    try:
        other = disguise(base, tmp_path / "x" / "y"), disguise(adapter, tmp_path / "z")
    finally:
        os.umask(before)
    assert image_of(base, adapter) == image_of(*other)


def test_the_digest_does_not_know_the_process(tmp_path: Path) -> None:
    base, adapter = make_base(tmp_path / "base"), make_adapter(tmp_path / "adapter")
    for seed, zone in (("0", "UTC"), ("1", "Asia/Tokyo")):
        environment = {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed, "TZ": zone, "LC_ALL": "C"}
        command = [sys.executable, "-c", BUILD, str(base), str(adapter)]
        built = subprocess.run(command, env=environment, capture_output=True, check=True)
        assert built.stdout == image_of(base, adapter)[1]


@pytest.mark.parametrize("name", ["config.json", "sub/notes.txt", "model-00002-of-00002.safetensors"])
def test_one_byte_changes_the_digest_of_its_layer_only(tmp_path: Path, name: str) -> None:
    base, adapter = make_base(tmp_path / "base"), make_adapter(tmp_path / "adapter")
    before = model_layers(base, adapter, "router")
    digests = [layer.digest for layer in before]
    data = bytearray((base / name).read_bytes())
    data[-1] ^= 1 if name.endswith("safetensors") else 0
    data += b"" if name.endswith("safetensors") else b" "
    (base / name).write_bytes(data)
    changed = [
        layer.title
        for layer, digest in zip(model_layers(base, adapter, "router"), digests, strict=True)
        if layer.digest != digest
    ]
    assert changed == [name if name.endswith("safetensors") else "model-files"]


def test_the_base_layers_are_the_same_with_any_adapter(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    one = model_layers(base, make_adapter(tmp_path / "a1", 1.0), "one")
    two = model_layers(base, make_adapter(tmp_path / "a2", 2.0), "two")
    assert [layer.digest for layer in one[:-1]] == [layer.digest for layer in two[:-1]]
    assert one[-1].digest != two[-1].digest


def test_python_reads_the_tars_back(tmp_path: Path) -> None:
    base, adapter = make_base(tmp_path / "base"), make_adapter(tmp_path / "adapter")
    names: dict[str, list[str]] = {}
    for layer in model_layers(base, adapter, "router"):
        data = content(layer)
        assert len(data) == layer.size
        assert layer.digest == f"sha256:{hashlib.sha256(data).hexdigest()}"
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            members = tar.getmembers()
            names[layer.title] = [member.name for member in members]
            for member in members:
                assert (member.mtime, member.uid, member.gid, member.uname, member.gname) == (0, 0, 0, "", "")
                assert member.mode == (0o755 if member.isdir() else 0o644)
                if member.isfile():
                    relative = member.name.removeprefix("models/")
                    source = base / relative if not relative.startswith("adapters/") else adapter / Path(relative).name
                    assert tar.extractfile(member).read() == source.read_bytes()  # type: ignore[union-attr]
    assert names == {
        "model-00001-of-00002.safetensors": ["models", "models/model-00001-of-00002.safetensors"],
        "model-00002-of-00002.safetensors": ["models", "models/model-00002-of-00002.safetensors"],
        "model-files": [
            "models",
            "models/README.md",
            "models/chat_template.jinja",
            "models/config.json",
            "models/model.safetensors.index.json",
            "models/sub",
            "models/sub/notes.txt",
            "models/tokenizer.json",
        ],
        "adapters/router": [
            "models",
            "models/adapters",
            "models/adapters/router",
            "models/adapters/router/README.md",
            "models/adapters/router/adapter_config.json",
            "models/adapters/router/adapter_model.safetensors",
        ],
    }


def test_the_tar_is_the_one_that_python_writes(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_bytes(b"x" * 513)
    info = (tmp_path / "x.txt").stat()
    name = "models/" + "long/" * 30 + "x.txt"
    layer = Layer("t", {name: SourceFile("x", tmp_path / "x.txt", 513, info.st_mtime_ns, info.st_ino)})
    expected = io.BytesIO()
    with tarfile.open(fileobj=expected, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for depth in range(1, len(name.split("/"))):
            folder = tarfile.TarInfo("/".join(name.split("/")[:depth]))
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(folder)
        file = tarfile.TarInfo(name)
        file.size, file.mode = 513, 0o644
        tar.addfile(file, io.BytesIO(b"x" * 513))
    data = expected.getvalue().rstrip(b"\0")  # Python pads to 10240 bytes, an image layer ends with two blocks
    assert content(layer).rstrip(b"\0") == data


@given(sizes=st.lists(st.integers(0, 1100), max_size=4))
def test_the_size_is_known_before_reading(tmp_path_factory: pytest.TempPathFactory, sizes: list[int]) -> None:
    folder = tmp_path_factory.mktemp("sizes")
    files = {}
    for number, size in enumerate(sizes):
        path = folder / str(number)
        path.write_bytes(b"x" * size)
        info = path.stat()
        files[f"models/{number}"] = SourceFile(str(number), path, size, info.st_mtime_ns, info.st_ino)
    layer = Layer("t", files)
    data = content(layer)
    assert len(data) == layer.size
    assert content(layer) == data


def test_manifest_and_config_say_what_a_runtime_needs(tmp_path: Path) -> None:
    layers = model_layers(make_base(tmp_path / "base"), make_adapter(tmp_path / "adapter"), "router")
    config_bytes, manifest_bytes = manifest(layers, {"org.opencontainers.image.title": "é"})
    config, document = json.loads(config_bytes), json.loads(manifest_bytes)
    assert manifest_bytes == json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    assert document["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    assert document["config"] == {
        "mediaType": "application/vnd.oci.image.config.v1+json",
        "digest": f"sha256:{hashlib.sha256(config_bytes).hexdigest()}",
        "size": len(config_bytes),
    }
    assert {entry["mediaType"] for entry in document["layers"]} == {"application/vnd.oci.image.layer.v1.tar"}
    assert document["annotations"] == {"org.opencontainers.image.title": "é"}
    assert config["rootfs"] == {"type": "layers", "diff_ids": [entry["digest"] for entry in document["layers"]]}
    assert len(config["history"]) == len(layers)
    assert (config["os"], config["architecture"], config["created"]) == ("linux", "amd64", "1970-01-01T00:00:00Z")
    assert config["config"]["User"] == "65534:65534"
    assert config["config"]["Env"][0].startswith("PATH=")
    assert "Entrypoint" not in config["config"]


def test_a_model_without_adapter_is_an_image_too(tmp_path: Path) -> None:
    titles = [layer.title for layer in model_layers(make_base(tmp_path / "base"), None, None)]
    assert titles == ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model-files"]


def test_a_file_that_changes_after_the_check_is_refused(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    layers = model_layers(base, None, None)
    (base / "config.json").write_text('{"model_type": "other"}')
    with pytest.raises(ModelChanged, match=r"config\.json changed while it was read"):
        _ = layers[-1].digest
    (base / "config.json").unlink()
    with pytest.raises(ModelChanged, match="is gone"):
        _ = layers[-1].digest


def test_a_file_that_changes_behind_its_stat_is_found(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    layer = model_layers(base, None, None)[-1]
    first = layer.digest
    stamp = next(file for file in base_files(base) if file.name == "tokenizer.json")
    (base / "tokenizer.json").write_text('{"version": "2.0"}')
    os.utime(base / "tokenizer.json", ns=(stamp.mtime_ns, stamp.mtime_ns))
    with pytest.raises(ModelChanged, match=first):
        content(layer)
