"""Which folders become images: Hugging Face caches do; code, pickles, damage and names that escape do not."""

import json
import os
import socket
import string
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from serving.modelcar import ModelRefused, model_layers
from serving.modelcar.source import adapter_files, base_files, check_adapter_name, check_member_name
from tests.fix_modelcar import make_adapter, make_base


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return make_base(tmp_path / "base")


def refusal(base: Path) -> str:
    with pytest.raises(ModelRefused) as caught:
        base_files(base)
    return str(caught.value)


def test_hidden_files_are_left_out_and_names_are_sorted(base: Path) -> None:
    assert [file.name for file in base_files(base)] == [
        "README.md",
        "chat_template.jinja",
        "config.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
        "sub/notes.txt",
        "tokenizer.json",
    ]


@pytest.mark.parametrize("name", ["a.bin", "a.pt", "a.pkl", "a.ckpt", "a.pth", "sub/A.BIN"])
def test_pickles_are_refused(base: Path, name: str) -> None:
    (base / name).write_bytes(b"x")
    assert name in refusal(base)


@pytest.mark.parametrize("name", ["modeling_x.py", "sub/Tokenizer.PY"])
def test_code_is_refused(base: Path, name: str) -> None:
    (base / name).write_text("print()")
    assert "Python code" in refusal(base)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "sub/processor_config.json"])
@pytest.mark.parametrize("config", [{"auto_map": {}}, {"text_config": [{"auto_map": {"AutoModel": "m.M"}}]}])
def test_auto_map_is_refused_at_any_depth(base: Path, name: str, config: object) -> None:
    (base / name).write_text(json.dumps(config))
    assert f"{name} has auto_map" in refusal(base)


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "[]", "\udcff"])
def test_a_config_that_is_no_json_object_is_refused(base: Path, text: str) -> None:
    (base / "config.json").write_text(text, errors="surrogateescape")
    assert "restore the file" in refusal(base)


def test_a_config_of_any_depth_that_json_reads_is_searched(base: Path) -> None:
    (base / "config.json").write_text('{"a":' * 900 + "1" + "}" * 900)
    assert base_files(base)


def test_a_folder_without_config_or_weights_is_refused(base: Path, tmp_path: Path) -> None:
    (base / "config.json").unlink()
    assert "no config.json" in refusal(base)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.json").write_text("{}")
    assert "no *.safetensors" in refusal(tmp_path / "empty")
    assert "is not a folder" in refusal(tmp_path / "absent")


def test_an_incomplete_download_is_refused(base: Path) -> None:
    (base / "model-00002-of-00002.safetensors").unlink()
    assert "lacks model-00002-of-00002.safetensors" in refusal(base)


def test_a_damaged_weight_file_is_refused(base: Path) -> None:
    path = base / "model-00001-of-00002.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    assert "model-00001-of-00002.safetensors places tensor 'w1'" in refusal(base)


def test_names_that_differ_in_case_only_are_refused(base: Path) -> None:
    (base / "Config.json").write_text("{}")
    assert "case" in refusal(base)


def test_folders_that_differ_in_case_only_are_refused(base: Path) -> None:
    (base / "SUB").mkdir()
    (base / "SUB" / "other.txt").write_text("x")
    assert "case" in refusal(base)


@pytest.mark.parametrize("name", ["adapters", "Adapters"])
def test_a_base_may_not_lie_where_adapters_go(base: Path, name: str) -> None:
    (base / name / "router").mkdir(parents=True)
    (base / name / "router" / "x.json").write_text("{}")
    assert "where adapters are placed" in refusal(base)


def test_fifos_and_sockets_are_refused(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(base / "fifo")
    assert "no regular file" in refusal(base)
    (base / "fifo").unlink()
    monkeypatch.chdir(base)  # a socket's path may only be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("sock")
        assert "no regular file" in refusal(base)


def hugging_face_cache(root: Path) -> Path:
    """The base model as the hub's cache keeps it: a snapshot of links to blobs with other names."""
    plain, repo = make_base(root / "plain"), root / "models--org--name"
    snapshot = repo / "snapshots" / "abc123"
    (repo / "blobs").mkdir(parents=True)
    for number, path in enumerate(sorted(file for file in plain.rglob("*") if file.is_file())):
        link = snapshot / path.relative_to(plain)
        link.parent.mkdir(parents=True, exist_ok=True)
        path.rename(repo / "blobs" / f"blob{number}")
        link.symlink_to(os.path.relpath(repo / "blobs" / f"blob{number}", link.parent))
    return snapshot


def test_a_hugging_face_snapshot_is_the_same_image_as_the_plain_folder(base: Path, tmp_path: Path) -> None:
    snapshot = hugging_face_cache(tmp_path / "cache")
    plain, linked = model_layers(base, None, None), model_layers(snapshot, None, None)
    assert [layer.digest for layer in plain] == [layer.digest for layer in linked]


def test_links_inside_the_folder_are_followed_and_others_refused(base: Path, tmp_path: Path) -> None:
    (base / "alias.txt").symlink_to("sub/notes.txt")
    assert {file.name: file.size for file in base_files(base)}["alias.txt"] == len("a note")
    (tmp_path / "secret").write_text("x")
    (base / "alias.txt").unlink()
    (base / "alias.txt").symlink_to(tmp_path / "secret")
    assert "outside the folder" in refusal(base)


def test_a_snapshot_may_not_link_past_its_own_blobs(tmp_path: Path) -> None:
    snapshot = hugging_face_cache(tmp_path / "cache")
    foreign = tmp_path / "cache" / "other" / "blobs"
    foreign.mkdir(parents=True)
    (foreign / "x").write_text("x")
    (snapshot / "x.txt").symlink_to(foreign / "x")
    assert "outside the folder" in refusal(snapshot)


def test_a_blobs_folder_near_a_plain_folder_is_not_a_cache(tmp_path: Path) -> None:
    base = make_base(tmp_path / "models" / "base")
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "x").write_text("x")
    (base / "x.txt").symlink_to(tmp_path / "blobs" / "x")
    assert "outside the folder" in refusal(base)


def test_broken_links_loops_and_linked_folders_are_refused(base: Path, tmp_path: Path) -> None:
    (base / "x").symlink_to("nowhere")
    assert "cannot be read" in refusal(base)
    (base / "x").unlink()
    (base / "x").symlink_to("x")
    assert "cannot be read" in refusal(base)
    (base / "x").unlink()
    (base / "x").symlink_to(base / "sub")
    assert "link to a folder" in refusal(base)


def test_an_adapter_is_three_files_and_no_more(tmp_path: Path) -> None:
    adapter = make_adapter(tmp_path / "adapter")
    (adapter / "training_args.bin").write_bytes(b"a pickle that the trainer leaves and nobody packs")
    names = ["adapter_config.json", "adapter_model.safetensors", "README.md"]
    assert [file.name for file in adapter_files(adapter)] == names


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_an_adapter_without_its_parts_is_refused(tmp_path: Path, name: str) -> None:
    adapter = make_adapter(tmp_path / "adapter")
    (adapter / name).unlink()
    with pytest.raises(ModelRefused, match=f"has no {name}; "):
        adapter_files(adapter)


def test_an_adapter_and_its_name_come_together(base: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match="both or neither"):
        model_layers(base, make_adapter(tmp_path / "adapter"), None)
    with pytest.raises(ModelRefused, match="both or neither"):
        model_layers(base, None, "router")


SAFE = string.ascii_letters + string.digits + "._-"


@given(st.text(alphabet=SAFE, min_size=1, max_size=128))
def test_an_accepted_adapter_name_is_one_component_below_adapters(name: str) -> None:
    assume(name[0] not in "._-" and ".." not in name)
    check_adapter_name(name)
    assert PurePosixPath(os.path.normpath(f"models/adapters/{name}")).parent == PurePosixPath("models/adapters")


@given(st.text(max_size=140))
def test_every_other_adapter_name_is_refused(name: str) -> None:
    assume(not name or len(name) > 128 or name[0] in "._-" or ".." in name or not set(name) <= set(SAFE))
    with pytest.raises(ModelRefused):
        check_adapter_name(name)


@given(st.lists(st.sampled_from(["a", "..", ".", "", "b.txt", "a\\b", "a\nb", "x\u202ey", "e\u0301"]), min_size=1))
def test_member_names_that_escape_or_hide_are_refused(parts: list[str]) -> None:
    name = "/".join(parts)
    if set(parts) <= {"a", "b.txt"}:
        check_member_name(name)
    else:
        with pytest.raises(ModelRefused):
            check_member_name(name)


@given(st.text())
def test_an_accepted_member_name_stays_below_its_root(name: str) -> None:
    try:
        check_member_name(name)
    except ModelRefused:
        return
    assert os.path.normpath(f"root/{name}") == f"root/{name}"
    assert name.encode().decode() == name


def test_a_name_that_is_not_unicode_is_refused(base: Path) -> None:
    Path(os.fsdecode(os.fsencode(base) + b"/\xff.txt")).write_text("x")
    assert "invisible character" in refusal(base)
