"""A pulled folder is the model, byte for byte; it appears whole or not at all, and is never written over."""

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from serving.modelcar import AdapterMissing, DestinationTaken, DigestMismatch, ImageMissing, open_store, parse_reference
from serving.modelcar.compare import compare
from serving.modelcar.describe import describe, layer_files
from serving.modelcar.layout_store import LayoutStore
from serving.modelcar.pull import pull
from tests.fix_modelcar import build

ROOT = Path(__file__).parent.parent
KILLED = """
import os, signal, sys
from pathlib import Path
from serving.modelcar import open_store, parse_reference
from serving.modelcar.pull import pull

def die(done, total):
    os.kill(os.getpid(), signal.SIGKILL)

pull(open_store(parse_reference(sys.argv[1])), sys.argv[2], Path(sys.argv[3]), progress=die)
"""


def store_of(layout: Path) -> LayoutStore:
    return LayoutStore(parse_reference(f"oci:{layout}"))


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }


def test_the_folder_is_the_model(tmp_path: Path) -> None:
    layout, image = build(tmp_path, "v1")
    seen: list[tuple[int, int]] = []
    pulled = pull(store_of(layout), "v1", tmp_path / "out" / "model", progress=lambda *at: seen.append(at))
    adapter = {f"adapters/router/{name}": data for name, data in tree(tmp_path / "adapter-1.0").items()}
    del adapter["adapters/router/trainer_state.json"]
    assert tree(tmp_path / "out" / "model") == tree(tmp_path / "base") | adapter
    assert pulled.digest == image.digest
    assert pulled.bytes_placed == sum(map(len, tree(tmp_path / "out" / "model").values()))
    assert seen[-1] == (sum(layer.size for layer in image.layers),) * 2
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["model"]


def test_one_adapter_can_be_taken_alone(tmp_path: Path) -> None:
    layout, image = build(tmp_path)
    pulled = pull(store_of(layout), image.digest, tmp_path / "a", only=["adapters/router"])
    assert pulled.files == tuple(
        f"adapters/router/{name}" for name in ("README.md", "adapter_config.json", "adapter_model.safetensors")
    )
    with pytest.raises(AdapterMissing, match="it has: adapters/router, "):
        pull(store_of(layout), image.digest, tmp_path / "b", only=["adapters/other"])
    assert not (tmp_path / "b").exists()


def test_a_taken_folder_is_left_alone(tmp_path: Path) -> None:
    layout, image = build(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("full", "file", "link"):
        with pytest.raises(DestinationTaken):
            pull(store_of(layout), image.digest, tmp_path / name)
    assert (tmp_path / "full" / "x").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    assert pull(store_of(layout), image.digest, tmp_path / "empty").files


def test_any_changed_blob_places_nothing(tmp_path: Path) -> None:
    layout, image = build(tmp_path)
    for layer in image.layers:
        path = layout / "blobs" / "sha256" / layer.digest.removeprefix("sha256:")
        data = path.read_bytes()
        path.write_bytes(data[:700] + bytes([data[700] ^ 1]) + data[701:])
        with pytest.raises(DigestMismatch, match=layer.digest):
            pull(store_of(layout), image.digest, tmp_path / "model")
        path.write_bytes(data)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter-1.0", "base", "layout"]
    with pytest.raises(ImageMissing):
        pull(store_of(layout), "v9", tmp_path / "model")


def test_a_killed_pull_leaves_no_folder_and_the_next_cleans_up(tmp_path: Path) -> None:
    layout, image = build(tmp_path)
    command = [sys.executable, "-c", KILLED, f"oci:{layout}", image.digest, str(tmp_path / "model")]
    done = subprocess.run(command, env={"PYTHONPATH": str(ROOT)}, check=False)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "model").exists()
    assert len(list(tmp_path.glob(".model.liftlock-partial-*"))) == 1
    pull(store_of(layout), image.digest, tmp_path / "model")
    assert list(tmp_path.glob(".model*")) == []


def test_a_pull_does_not_disturb_another_one_under_way(tmp_path: Path) -> None:
    layout, image = build(tmp_path)
    begun, go_on = threading.Event(), threading.Event()

    def wait(done: int, total: int) -> None:
        begun.set()
        go_on.wait(10)

    slow = threading.Thread(
        target=pull, args=(store_of(layout), image.digest, tmp_path / "model"), kwargs={"progress": wait}
    )
    slow.start()
    begun.wait(10)
    pull(store_of(layout), image.digest, tmp_path / "other")
    assert list(tmp_path.glob(".model.liftlock-partial-*"))
    go_on.set()
    slow.join()
    assert tree(tmp_path / "model") == tree(tmp_path / "other")


def test_an_image_describes_itself(tmp_path: Path) -> None:
    layout, image = build(tmp_path, "v1")
    with open_store(parse_reference(f"oci:{layout}")) as store:
        seen = describe(store, "v1")
        files = layer_files(store, seen.layers[-1])
    assert (seen.digest, seen.platform, seen.user, seen.entrypoint) == (image.digest, "linux/amd64", "65534:65534", ())
    assert seen.layers == image.layers
    assert dict(seen.annotations) == {"org.opencontainers.image.title": "router"}
    assert files is not None
    assert [file.name.rsplit("/", 1)[1] for file in files] == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
    ]


def test_two_images_are_compared_by_layer_and_by_file(tmp_path: Path) -> None:
    layout, first = build(tmp_path, scale=1.0)
    _, second = build(tmp_path, scale=2.0)
    store = store_of(layout)
    found = compare(store, first.digest, store, second.digest)
    assert (found.same, found.layers_shared, found.bytes_to_fetch) == (False, 3, second.layers[-1].size)
    assert [change.title for change in found.layers] == ["adapters/router"]
    assert [change.name for change in found.files] == ["models/adapters/router/adapter_model.safetensors"]
    assert found.annotations == ()
    assert compare(store, first.digest, store, first.digest).same
