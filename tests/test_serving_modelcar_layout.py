"""A layout folder holds exactly the image, is built once, survives kills and other builds, and shows tampering."""

import fcntl
import hashlib
import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.modelcar import (
    DigestMismatch,
    LayoutInvalid,
    model_layers,
    put_manifest,
    read_manifest,
    verify_layout,
    write_layout,
)
from serving.modelcar import blobs as blob_store
from serving.modelcar.layout import read_index, with_manifest
from tests.fix_modelcar import build, make_adapter, make_base

ROOT = Path(__file__).parent.parent
REF = "org.opencontainers.image.ref.name"
MEMORY = """
import json, resource, struct, sys
from pathlib import Path
from serving.modelcar import model_layers, verify_layout, write_layout

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

root, size = Path(sys.argv[1]), 300 << 20
header = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
(root / "base").mkdir()
(root / "base" / "config.json").write_text("{}")
with (root / "base" / "model.safetensors").open("wb") as file:
    file.write(struct.pack("<Q", len(header)) + header)
    file.truncate(8 + len(header) + size)
before = peak()
layers = model_layers(root / "base", None, None)
image = write_layout(root / "layout", layers, {})
verify_layout(root / "layout", image.digest)
print(json.dumps({"grown_mib": peak() - before, "written": image.bytes_written}))
"""

KILLED = """
import os, signal, sys
from pathlib import Path
from serving.modelcar import Layer, model_layers, write_layout

class Deadly(Layer):
    def stream(self):
        yield b"x"
        os.kill(os.getpid(), signal.SIGKILL)

first = model_layers(Path(sys.argv[1]), None, None)[0]
write_layout(Path(sys.argv[2]), [first, Deadly("deadly", {})], {})
"""


def files_of(layout: Path) -> set[Path]:
    return set((layout / "blobs" / "sha256").iterdir())


def partials(layout: Path) -> list[Path]:
    return list(layout.glob(".liftlock-partial-*"))


def test_the_folder_is_an_oci_layout(tmp_path: Path) -> None:
    layout, image = build(tmp_path, "v1")
    assert json.loads((layout / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    (entry,) = json.loads((layout / "index.json").read_text())["manifests"]
    assert entry["digest"] == image.digest
    assert entry["annotations"] == {REF: "v1"}
    for path in files_of(layout):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
    document = read_manifest(layout, image.digest)
    named = {document["config"]["digest"], image.digest, *(layer["digest"] for layer in document["layers"])}
    assert named == {f"sha256:{path.name}" for path in files_of(layout)}
    assert image.size == image.bytes_written == sum(path.stat().st_size for path in files_of(layout))
    assert [layer.title for layer in image.layers][-2:] == ["model-files", "adapters/router"]
    verify_layout(layout, image.digest)


def test_the_reference_has_the_name_or_the_path(tmp_path: Path) -> None:
    layers = model_layers(make_base(tmp_path / "base"), None, None)
    image = write_layout(tmp_path / "layout", layers, {}, name="registry.example.com/models/router")
    assert image.reference == f"registry.example.com/models/router@{image.digest}"
    assert write_layout(tmp_path / "layout", layers, {}).reference == f"{tmp_path / 'layout'}@{image.digest}"


def test_building_again_writes_nothing(tmp_path: Path) -> None:
    layout, image = build(tmp_path, "v1")
    before = {path: path.stat().st_mtime_ns for path in layout.rglob("*") if path.is_file() and path.suffix != ".lock"}
    _, again = build(tmp_path, "v1")
    assert (again.digest, again.bytes_written, again.size) == (image.digest, 0, image.size)
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_another_adapter_adds_its_layer_only(tmp_path: Path) -> None:
    layout, first = build(tmp_path, "v1", scale=1.0)
    _, second = build(tmp_path, "v2", scale=2.0)
    assert second.layers[:-1] == first.layers[:-1]
    assert second.bytes_written == second.size - sum(layer.size for layer in first.layers[:-1])
    assert [entry["annotations"][REF] for entry in read_index(layout)["manifests"]] == ["v1", "v2"]
    verify_layout(layout, first.digest)
    verify_layout(layout, second.digest)


def test_a_moved_tag_leaves_the_old_manifest_listed(tmp_path: Path) -> None:
    layout, first = build(tmp_path, "champion", scale=1.0)
    _, second = build(tmp_path, "champion", scale=2.0)
    listed = [(entry["digest"], entry.get("annotations")) for entry in read_index(layout)["manifests"]]
    assert listed == [(first.digest, None), (second.digest, {REF: "champion"})]


def test_any_changed_blob_is_found_and_named(tmp_path: Path) -> None:
    layout, image = build(tmp_path)
    for path in files_of(layout):
        original = path.read_bytes()
        flipped = bytearray(original)
        flipped[len(flipped) // 2] ^= 1
        for damaged in (bytes(flipped), original[:-1], original + b"\0", b""):
            path.write_bytes(damaged)
            with pytest.raises(DigestMismatch, match=path.name):
                verify_layout(layout, image.digest)
        path.unlink()
        with pytest.raises(DigestMismatch, match=path.name):
            verify_layout(layout, image.digest)
        path.write_bytes(original)
    verify_layout(layout, image.digest)


def test_a_cut_blob_is_written_again(tmp_path: Path) -> None:
    layout, image = build(tmp_path)
    for path in files_of(layout):
        size = path.stat().st_size
        path.write_bytes(path.read_bytes()[:-1])
        assert build(tmp_path)[1].bytes_written == size
        verify_layout(layout, image.digest)


@pytest.mark.parametrize("digest", ["", "sha256:../../../etc/passwd", "sha512:" + "0" * 128, "sha256:" + "A" * 64])
def test_a_digest_cannot_lead_out_of_the_folder(tmp_path: Path, digest: str) -> None:
    with pytest.raises(DigestMismatch, match="is not a digest"):
        read_manifest(tmp_path, digest)


@pytest.mark.parametrize(
    "document",
    [b"[]", b"{", b"{}", b'{"layers": {}}', b'{"layers": [], "config": 1}', b'{"layers": [{"digest": 1, "size": 1}]}'],
)
def test_a_manifest_without_config_and_layers_is_refused(tmp_path: Path, document: bytes) -> None:
    (tmp_path / "blobs" / "sha256").mkdir(parents=True)
    name = hashlib.sha256(document).hexdigest()
    (tmp_path / "blobs" / "sha256" / name).write_bytes(document)
    with pytest.raises(LayoutInvalid):
        read_manifest(tmp_path, f"sha256:{name}")


NUMBERED = {"digest": f"sha256:{'0' * 64}", "size": 1, "annotations": {"org.opencontainers.image.ref.name": 1.5}}


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"manifests": [{"size": 1}]}', '{"manifests": {}}', json.dumps({"manifests": [NUMBERED]})],
)
def test_a_foreign_index_is_left_alone(tmp_path: Path, text: str) -> None:
    (tmp_path / "index.json").write_text(text)
    layers = model_layers(make_base(tmp_path / "base"), None, None)
    with pytest.raises(LayoutInvalid):
        write_layout(tmp_path, layers, {})
    assert (tmp_path / "index.json").read_text() == text
    assert not (tmp_path / "blobs").exists()


def test_a_killed_build_leaves_only_what_the_next_build_removes(tmp_path: Path) -> None:
    base, layout = make_base(tmp_path / "base"), tmp_path / "layout"
    killed = subprocess.run([sys.executable, "-c", KILLED, base, layout], env={"PYTHONPATH": str(ROOT)}, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(partials(layout)) == 1
    assert len(files_of(layout)) == 1
    image = write_layout(layout, model_layers(base, None, None), {})
    assert not partials(layout)
    assert image.bytes_written == image.size - image.layers[0].size
    verify_layout(layout, image.digest)


def test_a_file_that_a_live_build_writes_is_not_removed(tmp_path: Path) -> None:
    with blob_store.partial_file(tmp_path) as live:
        blob_store.remove_partial_files(tmp_path)
        assert Path(live.name).exists()
        with Path(live.name).open("rb") as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert not Path(live.name).exists()


def test_builds_at_the_same_time_keep_each_others_manifests(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    digests: dict[str, str] = {}

    def work(number: int) -> None:
        adapter = make_adapter(tmp_path / f"adapter{number}", float(number))
        layers = model_layers(base, adapter, "router")
        digests[f"v{number}"] = write_layout(tmp_path / "layout", layers, {}, f"v{number}").digest

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    listed = read_index(tmp_path / "layout")["manifests"]
    assert {entry["annotations"][REF]: entry["digest"] for entry in listed} == digests
    assert len(digests) == 8
    for digest in digests.values():
        verify_layout(tmp_path / "layout", digest)


def test_put_manifest_keeps_what_other_tools_wrote(tmp_path: Path) -> None:
    foreign = {"digest": "sha256:" + "0" * 64, "size": 3, "platform": {"os": "linux"}, "annotations": {"theirs": "x"}}
    (tmp_path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [foreign], "more": 1}))
    document = b'{"mediaType": "application/vnd.oci.image.manifest.v1+json"}'
    digest, written = put_manifest(tmp_path, document, "v1")
    index = json.loads((tmp_path / "index.json").read_text())
    assert (index["manifests"][0], index["more"]) == (foreign, 1)
    assert index["manifests"][1]["digest"] == digest
    assert written == len(document)


@given(moves=st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([None, "t", "u"])), max_size=12))
def test_the_index_lists_each_manifest_and_the_last_move_of_each_tag(moves: list[tuple[str, str | None]]) -> None:
    index: dict[str, object] = {"schemaVersion": 2, "manifests": []}
    for digest, tag in moves:
        index = with_manifest(index, {"digest": digest, "size": 1, "mediaType": "m"}, tag)
    listed = [(entry["digest"], entry.get("annotations", {}).get(REF)) for entry in index["manifests"]]  # type: ignore[attr-defined]
    assert len(listed) == len(set(listed))
    assert {digest for digest, _ in listed} == {digest for digest, _ in moves}
    assert {tag: digest for digest, tag in listed if tag} == {tag: digest for digest, tag in moves if tag}
    assert not {digest for digest, tag in listed if not tag} & {digest for digest, tag in listed if tag}


def test_memory_does_not_grow_with_the_model(tmp_path: Path) -> None:
    command = [sys.executable, "-c", MEMORY, str(tmp_path)]
    done = subprocess.run(command, env={"PYTHONPATH": str(ROOT)}, capture_output=True, check=True, text=True)
    report = json.loads(done.stdout)
    assert report["written"] > 300 << 20
    assert report["grown_mib"] < 64
