"""Models read out of OCI images, from a layout folder and from a real registry, without unpacking a layer."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from serving.fit.folder_store import FolderStore
from serving.fit.image_ranges import ImageRanges
from serving.fit.image_store import Blob, ImageStore
from serving.fit.model_reader import ModelUnreadable, read_model
from serving.fit.open_model import Places, open_model
from serving.modelcar import Modelcar, model_layers, write_layout
from serving.modelcar.blobs import blob_path
from serving.modelcar.document import Access
from tests.fix_fit import write_adapter, write_model

TAR = "application/vnd.oci.image.layer.v1.tar"


def image(root: Path, shards: int = 2, **annotations: str) -> Modelcar:
    layers = model_layers(write_model(root / "base", shards=shards), write_adapter(root / "adapter"), "router")
    return write_layout(root / "layout", layers, annotations, "v1")


class Bytes:
    """One layer in memory."""

    name = "test@sha256:0"

    def __init__(self, data: bytes, media_type: str = TAR) -> None:
        self.data, self.read_bytes = data, 0
        self.blob = Blob("sha256:" + "0" * 64, len(data), media_type)

    def layers(self) -> tuple[Blob, ...]:
        return (self.blob,)

    def read(self, blob: Blob, start: int, size: int) -> bytes:
        self.read_bytes += size
        return self.data[start : start + size]


def tar_of(files: dict[str, bytes], kind: int = tarfile.GNU_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=kind) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@pytest.mark.parametrize("named", ["oci:{layout}:v1", "oci:{layout}@{digest}", "oci:{layout}:v1@{digest}"])
def test_a_layout_gives_the_same_as_the_folder(tmp_path: Path, named: str) -> None:
    made = image(tmp_path)
    found = read_model(open_model(named.format(layout=tmp_path / "layout", digest=made.digest), Places()))
    plain = read_model(FolderStore(tmp_path / "base"))
    assert (found.tensors, found.config, found.file_bytes) == (plain.tensors, plain.config, plain.file_bytes)
    assert found.digest == plain.digest
    assert found.origin.endswith(made.digest)


def test_a_build_of_this_machine_by_its_reference(tmp_path: Path) -> None:
    """As it stands in MLflow's tag: liftlock/NAME@DIGEST."""
    made = image(tmp_path)
    name = f"liftlock/router@{made.digest}"
    assert open_model(name, Places(modelcars=tmp_path / "layout")).origin.endswith(made.digest)
    with pytest.raises(ModelUnreadable, match="names no registry"):
        open_model(name, Places(modelcars=tmp_path / "nowhere"))


def test_adapters_are_no_part_of_the_base(tmp_path: Path) -> None:
    image(tmp_path)
    store = open_model(f"oci:{tmp_path / 'layout'}:v1", Places())
    assert not any("adapter" in name for name in store.sizes())
    assert sum(name.endswith(".safetensors") for name in store.sizes()) == 2


def test_the_image_names_its_base(tmp_path: Path) -> None:
    image(tmp_path, **{"dev.liftlock.base-model": "org/base"})
    assert open_model(f"oci:{tmp_path / 'layout'}:v1", Places()).names == ("org/base",)


def test_only_the_beginning_of_a_layer_is_read(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    save_file({"w": np.zeros(5_000_000, dtype=np.float32)}, tmp_path / "m" / "model.safetensors")
    weights = (tmp_path / "m" / "model.safetensors").read_bytes()
    layer = Bytes(tar_of({"models/model.safetensors": weights, "models/config.json": b"{}"}))
    found = read_model(ImageStore(layer))
    assert found.file_bytes == (len(weights),)
    assert layer.read_bytes < 250_000 < len(weights)


def test_the_registry_gives_the_same(tmp_path: Path, registry: str, repository: str) -> None:
    """A real docker-registry, by ranges: what it sent is counted at the client."""
    made = image(tmp_path)
    document = blob_path(tmp_path / "layout", made.digest).read_bytes()
    manifest = json.loads(document)
    for entry in [manifest["config"], *manifest["layers"]]:
        start = httpx.post(f"{registry}/v2/{repository}/blobs/uploads/")
        where = start.headers["location"]
        where = where if "://" in where else f"{registry}{where}"
        data = blob_path(tmp_path / "layout", entry["digest"]).read_bytes()
        answer = httpx.put(where, params={**httpx.URL(where).params, "digest": entry["digest"]}, content=data)
        assert answer.status_code == 201, answer.text
    kind = {"content-type": manifest["mediaType"]}
    assert httpx.put(f"{registry}/v2/{repository}/manifests/v1", content=document, headers=kind).status_code == 201
    name = f"{registry.removeprefix('http://')}/{repository}@{made.digest}"
    found = read_model(open_model(name, Places()))
    assert found.digest == read_model(FolderStore(tmp_path / "base")).digest
    assert found.tensors
    by_kserve = read_model(open_model(f"oci://{name}", Places()))
    assert by_kserve.digest == found.digest
    with pytest.raises(ModelUnreadable, match="no manifest"):
        open_model(f"{name[:-4]}0000", Places())


def test_large_ranges_are_read_in_parts(tmp_path: Path) -> None:
    image(tmp_path)
    ranges = ImageRanges(f"oci:{tmp_path / 'layout'}:v1", Access())
    layer = ranges.layers()[0]
    whole = blob_path(tmp_path / "layout", layer.digest).read_bytes()
    assert ranges.read(layer, 0, layer.size) == whole
    assert ranges.read(layer, 100, 700) == whole[100:800]


@pytest.mark.parametrize("kind", ["tar+gzip", "tar+zstd", "something"])
def test_a_compressed_layer_is_refused(kind: str) -> None:
    with pytest.raises(ModelUnreadable, match=r"plain tar.*Build it as a modelcar"):
        ImageStore(Bytes(b"", f"application/vnd.oci.image.layer.v1.{kind}"))


@pytest.mark.parametrize(
    "text",
    ["oci:", "oci:/nowhere-at-all:v1", "oci:x@sha256:12", "ghcr.io/X/y@sha256:" + "a" * 64, "oci://nohost"],
)
def test_what_names_no_image(text: str, tmp_path: Path) -> None:
    with pytest.raises(ModelUnreadable):
        open_model(text, Places())


def test_an_index_leads_to_the_linux_manifest(tmp_path: Path) -> None:
    """docker build writes an index with an attestation beside the image."""
    made = image(tmp_path)
    layout = tmp_path / "layout"
    size = blob_path(layout, made.digest).stat().st_size
    kind = "application/vnd.oci.image.manifest.v1+json"
    image_index = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [
            {"mediaType": kind, "digest": f"sha256:{'0' * 64}", "size": 1, "platform": {"os": "unknown"}},
            {"mediaType": kind, "digest": made.digest, "size": size, "platform": {"os": "linux"}},
        ],
    }
    from serving.modelcar import put_manifest

    put_manifest(layout, json.dumps(image_index).encode(), "multi")
    assert open_model(f"oci:{layout}:multi", Places()).origin.endswith(made.digest)


def test_a_member_that_ends_behind_its_layer() -> None:
    data = tar_of({"models/model.safetensors": bytes(4096)})
    with pytest.raises(ModelUnreadable, match="tar"):
        ImageStore(Bytes(data[:2048]))


def test_an_extended_header_that_claims_gigabytes() -> None:
    data = bytearray(tar_of({"models/" + "x" * 300: b"a"}, tarfile.PAX_FORMAT))
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, 6 << 30
    with pytest.raises(ModelUnreadable, match="tar"):
        ImageStore(Bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(data)))


@given(st.binary(max_size=2000), st.integers(0, 1500), st.binary(max_size=40))
def test_fuzzed_layers_are_read_or_refused(data: bytes, place: int, change: bytes) -> None:
    """Any bytes, and a good tar with bytes changed: a listing with sizes inside the layer, or ModelUnreadable."""
    good = bytearray(tar_of({"models/config.json": b"{}", "models/a.safetensors": b"12345678"}))
    good[place : place + len(change)] = change
    for layer in (Bytes(data), Bytes(bytes(good))):
        try:
            sizes = ImageStore(layer).sizes()
        except ModelUnreadable as error:
            assert "required" in str(error) or "Build the image again" in str(error)
        else:
            assert all(0 <= size <= len(layer.data) for size in sizes.values())
