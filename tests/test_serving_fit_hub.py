"""Models read from a Hugging Face hub: the same as from a folder, by ranges, at one commit, and with clear refusals."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from serving.fit.folder_store import FolderStore
from serving.fit.hub import HubAccess, HubStore
from serving.fit.model_files import ModelFiles
from serving.fit.model_reader import FIRST_READ_BYTES, ModelUnreadable, read_model
from serving.fit.open_model import Places, open_model
from tests.fix_fit import write_model
from tests.fix_hub import COMMIT, TOKEN, FakeHub, running_hub


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with running_hub() as found:
        yield found


def read(hub: FakeHub, model: str = "org/base", token: str = TOKEN) -> ModelFiles:
    return read_model(HubStore(model, HubAccess(hub.endpoint, token, timeout_seconds=5)))


def same_model(one: ModelFiles, other: ModelFiles) -> bool:
    return (one.config, one.tensors, one.file_bytes, one.digest) == (
        other.config, other.tensors, other.file_bytes, other.digest,
    )  # fmt: skip


@pytest.mark.parametrize("shards", [1, 3])
def test_the_same_as_from_the_folder(hub: FakeHub, tmp_path: Path, shards: int) -> None:
    hub.models["org/base"] = write_model(tmp_path / "m", shards=shards)
    found = read(hub)
    assert same_model(found, read_model(FolderStore(tmp_path / "m")))
    assert found.tensors
    assert len(found.file_bytes) == shards
    assert (found.name, found.names, found.origin) == ("org/base", ("org/base",), f"org/base at {COMMIT}")


def test_weights_are_not_downloaded(hub: FakeHub, tmp_path: Path) -> None:
    """A file of 40 MB: one range of its beginning."""
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    save_file({"w": np.zeros((1000, 10_000), dtype=np.float32)}, folder / "model.safetensors")
    hub.models["org/base"] = folder
    found = read(hub)
    assert found.file_bytes[0] > 40_000_000
    assert hub.file_bytes <= FIRST_READ_BYTES + 2


def test_a_long_header_is_read_in_two_ranges(hub: FakeHub, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    save_file({f"tensor.{i:05}": np.zeros(2, dtype=np.float32) for i in range(3000)}, folder / "model.safetensors")
    hub.models["org/base"] = folder
    found = read(hub)
    assert found.tensors is not None
    assert len(found.tensors) == 3000
    assert sum("model.safetensors" in path for path in hub.asked) == 4  # two ranges, each redirected


def test_the_revision_is_resolved_once_and_pinned(hub: FakeHub, tmp_path: Path) -> None:
    hub.models["org/base"] = write_model(tmp_path / "m")
    read(hub, "org/base@v1")
    assert hub.asked[0].startswith("/api/models/org/base/revision/v1")
    assert [path for path in hub.asked if "/resolve/" in path] == [
        f"/org/base/resolve/{COMMIT}/{name}" for name in ("config.json", "model.safetensors")
    ]


def test_a_hub_that_ignores_ranges_is_cut_off(hub: FakeHub, tmp_path: Path) -> None:
    hub.models["org/base"], hub.ignores_ranges = write_model(tmp_path / "m", shards=2), True
    assert same_model(read(hub), read_model(FolderStore(tmp_path / "m")))


def test_the_token_goes_to_the_hub_and_not_behind_the_redirect(hub: FakeHub, tmp_path: Path) -> None:
    hub.models["org/base"], hub.private = write_model(tmp_path / "m"), True
    assert read(hub).tensors
    assert hub.authorised_files == []
    with pytest.raises(ModelUnreadable, match="401"):
        read(hub, token="wrong")


def test_config_and_index_without_weights(hub: FakeHub, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m", shards=2)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    (folder / "model.safetensors.index.json").write_text(json.dumps(index | {"metadata": {"total_size": 12345}}))
    for path in folder.glob("*.safetensors"):
        path.unlink()
    hub.models["org/base"] = folder
    found = read(hub)
    assert (found.tensors, found.file_bytes, found.index_bytes) == (None, (), 12345)
    assert found.origin.endswith("without weight files")


@pytest.mark.parametrize("model", ["org/other", "org/base@nobranch"])
def test_what_is_not_there(hub: FakeHub, tmp_path: Path, model: str) -> None:
    hub.models["org/base"] = write_model(tmp_path / "m")
    with pytest.raises(ModelUnreadable, match=r"404.*spelling"):
        read(hub, model)


@pytest.mark.parametrize("listing", [b"<html>", b"{}", b'{"sha": "main", "siblings": []}', b'{"sha": 1}', b"[]"])
def test_a_list_of_files_that_is_none(hub: FakeHub, tmp_path: Path, listing: bytes) -> None:
    hub.models["org/base"], hub.listing = write_model(tmp_path / "m"), listing
    with pytest.raises(ModelUnreadable, match="list of files"):
        read(hub)


def test_a_failing_file_server(hub: FakeHub, tmp_path: Path) -> None:
    hub.models["org/base"], hub.status = write_model(tmp_path / "m"), 503
    with pytest.raises(ModelUnreadable, match="503"):
        read(hub)


def test_an_endpoint_that_does_not_answer(hub: FakeHub) -> None:
    with pytest.raises(ModelUnreadable, match=r"ConnectError.*Try again"):
        HubStore("org/base", HubAccess("http://127.0.0.1:9", TOKEN, 2))


@pytest.mark.parametrize("text", ["", "a b", "../x", "a/b/c/d", "https://x", "a/b@", "x" * 300, "a/\n"])
def test_what_is_no_id_is_refused_before_anything_is_sent(hub: FakeHub, text: str) -> None:
    with pytest.raises(ModelUnreadable):
        open_model(text or "\0", Places(HubAccess(hub.endpoint, TOKEN)))
    assert hub.asked == []


def test_hf_uris_name_the_hub_and_folders_come_first(hub: FakeHub, tmp_path: Path, monkeypatch) -> None:
    hub.models["org/base"] = write_model(tmp_path / "elsewhere")
    places = Places(HubAccess(hub.endpoint, TOKEN))
    assert open_model("hf://org/base", places).origin.startswith("org/base at ")
    write_model(tmp_path / "org" / "base")
    monkeypatch.chdir(tmp_path)
    assert open_model("org/base", places).origin == "folder"
