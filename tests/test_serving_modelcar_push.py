"""What a real docker-registry holds after a push, and what a second push sends."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from serving.modelcar import PushResult, copy_image, open_store, parse_reference, place_adapter, read_manifest
from tests.fix_modelcar import build

pytest_plugins = ("tests.fix_registry",)

ROOT = Path(__file__).parent.parent
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
MEMORY = """
import hashlib, json, resource, sys
from pathlib import Path
from serving.modelcar import copy_image, open_store, parse_reference, put_manifest

layout, registry = Path(sys.argv[1]), sys.argv[2]
folder, size = layout / "blobs" / "sha256", 300 << 20
folder.mkdir(parents=True)
with (folder / "sparse").open("wb") as file:
    file.truncate(size)
with (folder / "sparse").open("rb") as file:
    name = hashlib.file_digest(file, "sha256").hexdigest()
(folder / "sparse").rename(folder / name)
config = hashlib.sha256(b"{}").hexdigest()
(folder / config).write_bytes(b"{}")
document = {
    "schemaVersion": 2,
    "mediaType": "application/vnd.oci.image.manifest.v1+json",
    "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": f"sha256:{config}", "size": 2},
    "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": f"sha256:{name}", "size": size}],
}
digest, _ = put_manifest(layout, json.dumps(document).encode(), None)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
source = open_store(parse_reference(f"oci:{layout}"))
with open_store(parse_reference(f"{registry}/{sys.argv[3]}")) as target:
    result = copy_image(source, digest, target, None)
print(json.dumps({"grown_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024 - before,
                  "sent": result.bytes_sent}))
"""


def push(
    layout: Path,
    digest: str,
    registry: str,
    repository: str,
    tag: str | None,
    progress: Callable[[int, int], None] | None = None,
) -> PushResult:
    source = open_store(parse_reference(f"oci:{layout}"))
    with open_store(parse_reference(f"{registry}/{repository}")) as target:
        return copy_image(source, digest, target, tag, progress=progress)


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=30) as client:
        yield client


def test_the_registry_serves_what_was_built(
    tmp_path: Path, registry: str, repository: str, client: httpx.Client
) -> None:
    layout, image = build(tmp_path)
    result = push(layout, image.digest, registry, repository, "v1")
    blobs = {path.name: path.read_bytes() for path in (layout / "blobs" / "sha256").iterdir()}
    manifest = blobs.pop(image.digest.removeprefix("sha256:"))
    assert result == PushResult(image.digest, sum(map(len, blobs.values())), len(blobs), 0, 0)
    for reference in ("v1", image.digest):
        read = client.get(f"{registry}/v2/{repository}/manifests/{reference}", headers={"Accept": MANIFEST})
        assert (read.content, read.headers["Content-Type"]) == (manifest, MANIFEST)
    for name, data in blobs.items():
        assert client.get(f"{registry}/v2/{repository}/blobs/sha256:{name}").content == data


def test_an_adapter_comes_back_from_the_registry(
    tmp_path: Path, registry: str, repository: str, client: httpx.Client
) -> None:
    layout, image = build(tmp_path)
    push(layout, image.digest, registry, repository, None)
    url, pulled = f"{registry}/v2/{repository}", tmp_path / "pulled"
    (pulled / "blobs" / "sha256").mkdir(parents=True)
    document = client.get(f"{url}/manifests/{image.digest}", headers={"Accept": MANIFEST}).content
    layer = json.loads(document)["layers"][-1]["digest"]
    for digest, data in ((image.digest, document), (layer, client.get(f"{url}/blobs/{layer}").content)):
        (pulled / "blobs" / "sha256" / digest.removeprefix("sha256:")).write_bytes(data)
    place_adapter(pulled, image.digest, "router", tmp_path / "placed")
    for path in (tmp_path / "placed").iterdir():
        assert path.read_bytes() == (tmp_path / "adapter-1.0" / path.name).read_bytes()


def test_pushing_again_sends_no_blob(tmp_path: Path, registry: str, repository: str, client: httpx.Client) -> None:
    layout, image = build(tmp_path)
    first = push(layout, image.digest, registry, repository, "v1")
    assert push(layout, image.digest, registry, repository, "v2") == PushResult(image.digest, 0, 0, first.blobs_sent, 0)
    assert client.get(f"{registry}/v2/{repository}/tags/list").json()["tags"] == ["v1", "v2"]


def test_another_adapter_sends_its_layer_and_config_only(tmp_path: Path, registry: str, repository: str) -> None:
    layout, first = build(tmp_path, scale=1.0)
    _, second = build(tmp_path, scale=2.0)
    push(layout, first.digest, registry, repository, None)
    result = push(layout, second.digest, registry, repository, None)
    config = read_manifest(layout, second.digest)["config"]["size"]
    assert result == PushResult(second.digest, second.layers[-1].size + config, 2, len(first.layers) - 1, 0)


def test_progress_rises_to_the_size_of_the_blobs(tmp_path: Path, registry: str, repository: str) -> None:
    layout, image = build(tmp_path)
    seen: list[tuple[int, int]] = []

    def add(done: int, total: int) -> None:
        seen.append((done, total))

    result = push(layout, image.digest, registry, repository, None, progress=add)
    assert seen == sorted(seen)
    assert {total for _, total in seen} == {result.bytes_sent}
    assert seen[-1] == (result.bytes_sent, result.bytes_sent)
    seen.clear()
    push(layout, image.digest, registry, repository, None, progress=add)
    assert seen[-1] == (result.bytes_sent, result.bytes_sent)


def test_a_large_layer_is_not_held_in_memory(tmp_path: Path, registry: str, repository: str) -> None:
    command = [sys.executable, "-c", MEMORY, str(tmp_path / "layout"), registry, repository]
    done = subprocess.run(command, env={"PYTHONPATH": str(ROOT)}, capture_output=True, check=True, text=True)
    report = json.loads(done.stdout)
    assert report["sent"] == (300 << 20) + 2
    assert report["grown_mib"] < 64
