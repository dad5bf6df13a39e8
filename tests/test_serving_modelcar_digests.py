"""The digest cache believes a file's stat only where that can be believed; licence, shell and artifact of a build."""

import json
import os
from pathlib import Path

import pytest

from serving.modelcar import (
    DigestCache,
    DigestMismatch,
    ModelChanged,
    model_layers,
    open_store,
    parse_reference,
    push_image,
)
from serving.modelcar.licence import LicenceNotAllowed, check_licence, licence_of, model_card
from serving.modelcar.modelpack import modelpack
from serving.modelcar.shell import SHA256, ShellMissing, shell_layer
from tests.fix_modelcar import make_base

OLD = 1_600_000_000_000_000_000


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Files old enough to be believed."""
    base = make_base(tmp_path / "base")
    for path in base.rglob("*"):
        os.utime(path, ns=(OLD, OLD))
    return base


def fill(base: Path, cache: Path) -> list[str]:
    known = DigestCache(cache)
    digests = [known.fill(layer) for layer in model_layers(base, None, None)]
    known.save()
    return digests


def test_unchanged_files_are_not_read_again(base: Path, tmp_path: Path) -> None:
    cache = tmp_path / "state" / "digests.json"
    first = fill(base, cache)
    assert len(json.loads(cache.read_text())) == len(first) == 3
    layers = model_layers(base, None, None)
    for path in base.glob("*.safetensors"):  # same stat, other bytes: whoever trusts the stat gives the old digest
        data = path.read_bytes()
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        os.utime(path, ns=(OLD, OLD))
    known = DigestCache(cache)
    assert [known.fill(layer) for layer in layers] == first


@pytest.mark.parametrize("change", ["content", "touch", "name", "copy"])
def test_a_change_that_stat_shows_is_seen(base: Path, tmp_path: Path, change: str) -> None:
    cache = tmp_path / "digests.json"
    first = fill(base, cache)
    path = base / "tokenizer.json"
    if change == "content":
        path.write_text('{"version": "9.9"}')
    elif change == "touch":
        os.utime(path, ns=(OLD + 1, OLD + 1))
    elif change == "name":
        path.rename(base / "tokenizer2.json")
    else:
        (base / "copy").write_bytes(path.read_bytes())
        (base / "copy").replace(path)
        os.utime(path, ns=(OLD, OLD))
    fresh = [layer.digest for layer in model_layers(base, None, None)]
    assert fill(base, cache) == fresh
    assert (fresh == first) == (change in ("touch", "copy"))


def test_a_young_file_is_not_remembered(base: Path, tmp_path: Path) -> None:
    os.utime(base / "config.json")
    fill(base, tmp_path / "digests.json")
    assert len(json.loads((tmp_path / "digests.json").read_text())) == 2


@pytest.mark.parametrize("text", ["", "{", "[]", '{"a": 1}', '{"a": "sha256:x"}'])
def test_a_damaged_cache_is_an_empty_one(base: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "digests.json").write_text(text)
    assert fill(base, tmp_path / "digests.json") == [layer.digest for layer in model_layers(base, None, None)]


def test_a_wrong_memory_never_becomes_an_image(base: Path, tmp_path: Path) -> None:
    cache = tmp_path / "digests.json"
    fill(base, cache)
    cache.write_text(json.dumps(dict.fromkeys(json.loads(cache.read_text()), "sha256:" + "0" * 64)))
    target = tmp_path / "layout"
    with open_store(parse_reference(f"oci:{target}")) as store, pytest.raises(DigestMismatch, match="came for blob"):
        push_image(model_layers(base, None, None), {}, store, "v1", cache=DigestCache(cache))
    assert not (target / "index.json").exists()


def test_a_file_that_changes_while_it_is_pushed_is_refused(base: Path, tmp_path: Path) -> None:
    layers = model_layers(base, None, None)
    (base / "config.json").write_text('{"model_type": "other"}')
    with open_store(parse_reference(f"oci:{tmp_path / 'layout'}")) as store, pytest.raises(ModelChanged):
        push_image(layers, {}, store, "v1")


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: Apache-2.0\n---\n# x", "apache-2.0"),
        ("---\r\nlicense: 'mit' # ours\r\n---\r\n", "mit"),
        ("---\nlicense: other\nlicense_name: gemma\n---\n", "gemma"),
        ("---\ntags: [a]\n---\nlicense: mit\n", None),
        ("# no head\nlicense: mit\n", None),
        ("", None),
    ],
)
def test_the_licence_is_what_the_card_says(base: Path, card: str, licence: str | None) -> None:
    (base / "README.md").write_bytes(card.encode())
    assert licence_of(model_card(model_layers(base, None, None))) == licence
    check_licence(licence, ())
    check_licence(licence, [licence.upper()] if licence else [])
    with pytest.raises(LicenceNotAllowed, match=licence or "not named"):
        check_licence(licence, ["bsd-3-clause"])


def test_only_the_pinned_shell_is_taken(tmp_path: Path) -> None:
    (tmp_path / "busybox").write_bytes(b"\x7fELF another")
    with pytest.raises(ShellMissing, match=f"not {SHA256}"):
        shell_layer(tmp_path / "busybox")
    with pytest.raises(ShellMissing, match="is no busybox"):
        shell_layer(tmp_path / "absent")


def test_the_artifact_names_the_same_bytes(base: Path) -> None:
    layers = model_layers(base, None, None)
    config, document = (json.loads(part) for part in modelpack(layers, "base", {"a": "b"}))
    assert document["artifactType"] == "application/vnd.cncf.model.manifest.v1+json"
    assert document["config"]["mediaType"] == "application/vnd.cncf.model.config.v1+json"
    assert [layer["digest"] for layer in document["layers"]] == [layer.digest for layer in layers]
    assert config["modelfs"] == {"type": "layers", "diffIds": [layer.digest for layer in layers]}
    assert {layer["mediaType"] for layer in document["layers"]} == {
        "application/vnd.cncf.model.weight.v1.tar",
        "application/vnd.cncf.model.weight.config.v1.tar",
    }
