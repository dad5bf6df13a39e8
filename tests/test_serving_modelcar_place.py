"""An adapter placed from an image has the bytes that went in, appears at once, and hostile layers place nothing."""

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.modelcar import (
    AdapterMissing,
    DestinationTaken,
    DigestMismatch,
    LayerRefused,
    model_layers,
    place_adapter,
    write_layout,
)
from tests.fix_modelcar import build, make_base

PREFIX = "models/adapters/router"
PLACED = ("README.md", "adapter_config.json", "adapter_model.safetensors")


def listing(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def put(layout: Path, data: bytes) -> tuple[str, int]:
    digest = hashlib.sha256(data).hexdigest()
    (layout / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
    (layout / "blobs" / "sha256" / digest).write_bytes(data)
    return f"sha256:{digest}", len(data)


def image_with_layer(layout: Path, tar: bytes) -> str:
    """A sound manifest whose adapter layer is `tar`."""

    def entry(data: bytes, title: str) -> dict[str, object]:
        digest, size = put(layout, data)
        return {"digest": digest, "size": size, "annotations": {"org.opencontainers.image.title": title}}

    document = {"config": entry(b"{}", ""), "layers": [entry(tar, "adapters/router")]}
    return put(layout, json.dumps(document).encode())[0]


def member(
    name: str, kind: bytes = tarfile.REGTYPE, data: bytes = b"{}", link: str = ""
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    info.size = len(data) if kind == tarfile.REGTYPE else 0
    return info, data


def tar_of(members: Sequence[tuple[tarfile.TarInfo, bytes]], form: int = tarfile.GNU_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data) if info.isreg() else None)
    return buffer.getvalue()


GOOD = (member(f"{PREFIX}/adapter_config.json"), member(f"{PREFIX}/adapter_model.safetensors"))


def assert_nothing_placed(folder: Path) -> None:
    assert [path.name for path in folder.iterdir() if not path.name.endswith(".lock")] == []


def test_the_placed_bytes_are_the_ones_built(tmp_path: Path) -> None:
    layout, image = build(tmp_path)
    place_adapter(layout, image.digest, "router", tmp_path / "deep" / "placed")
    source = {name: (tmp_path / "adapter-1.0" / name).read_bytes() for name in PLACED}
    assert listing(tmp_path / "deep" / "placed") == source


def test_another_user_may_read_what_is_placed(tmp_path: Path) -> None:
    layout, image = build(tmp_path)
    before = os.umask(0o022)
    try:
        place_adapter(layout, image.digest, "router", tmp_path / "placed")
    finally:
        os.umask(before)
    assert (tmp_path / "placed").stat().st_mode & 0o777 == 0o755
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "placed").iterdir()} == {0o644}


def test_placing_again_changes_nothing(tmp_path: Path) -> None:
    layout, image = build(tmp_path)
    dest = tmp_path / "out" / "placed"
    place_adapter(layout, image.digest, "router", dest)
    before = [(path, path.stat().st_mtime_ns, path.stat().st_ino) for path in [dest, *sorted(dest.iterdir())]]
    place_adapter(layout, image.digest, "router", dest)
    assert before == [(path, path.stat().st_mtime_ns, path.stat().st_ino) for path in [dest, *sorted(dest.iterdir())]]
    assert {path.name for path in dest.parent.iterdir()} == {"placed", ".liftlock-place.lock"}


def test_an_empty_destination_is_filled(tmp_path: Path) -> None:
    layout, image = build(tmp_path)
    (tmp_path / "placed").mkdir()
    place_adapter(layout, image.digest, "router", tmp_path / "placed")
    assert sorted(listing(tmp_path / "placed")) == sorted(PLACED)


@pytest.mark.parametrize("change", ["other bytes", "more", "less", "link", "folder"])
def test_a_destination_with_other_files_is_left_alone(tmp_path: Path, change: str) -> None:
    layout, image = build(tmp_path)
    dest = tmp_path / "placed"
    place_adapter(layout, image.digest, "router", dest)
    match change:
        case "other bytes":
            (dest / "README.md").write_text("mine")
        case "more":
            (dest / "more.txt").write_text("mine")
        case "less":
            (dest / "README.md").unlink()
        case "link":
            (dest / "README.md").unlink()
            (dest / "README.md").symlink_to(tmp_path / "adapter-1.0" / "README.md")
        case "folder":
            (dest / "sub").mkdir()
    before = listing(dest)
    with pytest.raises(DestinationTaken):
        place_adapter(layout, image.digest, "router", dest)
    assert listing(dest) == before


def test_a_file_or_link_as_destination_is_refused(tmp_path: Path) -> None:
    layout, image = build(tmp_path)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name in ("file", "link"):
        with pytest.raises(DestinationTaken, match="is not a folder"):
            place_adapter(layout, image.digest, "router", tmp_path / name)
    assert not (tmp_path / "elsewhere").exists()


def test_a_missing_adapter_is_named_with_those_that_are_there(tmp_path: Path) -> None:
    layout, image = build(tmp_path)
    with pytest.raises(AdapterMissing, match="no adapter 'other'; it has: router"):
        place_adapter(layout, image.digest, "other", tmp_path / "placed")
    plain = write_layout(layout, model_layers(make_base(tmp_path / "base2"), None, None), {})
    with pytest.raises(AdapterMissing, match="it has: none"):
        place_adapter(layout, plain.digest, "router", tmp_path / "placed")


@pytest.mark.parametrize("part", ["manifest", "start of the tar", "middle of the tar", "end of the tar", "size"])
def test_a_damaged_image_places_nothing(tmp_path: Path, part: str) -> None:
    layout, image = build(tmp_path)
    digest = image.digest if part == "manifest" else image.layers[-1].digest
    path = layout / "blobs" / "sha256" / digest.removeprefix("sha256:")
    data = bytearray(path.read_bytes())
    offset = {"middle of the tar": len(data) // 2, "end of the tar": len(data) - 1}.get(part, 0)
    data[offset] ^= 1
    path.write_bytes(data + b"\0" if part == "size" else data)
    with pytest.raises(DigestMismatch, match=digest):
        place_adapter(layout, image.digest, "router", tmp_path / "out" / "placed")
    assert not (tmp_path / "out" / "placed").exists()


@pytest.mark.parametrize(
    "bad",
    [
        member("/etc/passwd"),
        member("../x"),
        member(f"{PREFIX}/../../../x"),
        member(f"{PREFIX}/../adapter_config.json"),
        member(f"{PREFIX}/sub/adapter_config.json"),
        member(f"{PREFIX}2/adapter_config.json"),
        member("models/config.json"),
        member(f"{PREFIX}/evil.py"),
        member(f"{PREFIX}/"),
        member(f"{PREFIX}/adapter_config.json"),
        member(f"{PREFIX}/README.md", tarfile.SYMTYPE, link="/etc/passwd"),
        member(f"{PREFIX}/README.md", tarfile.LNKTYPE, link=f"{PREFIX}/adapter_config.json"),
        member(f"{PREFIX}/README.md", tarfile.CHRTYPE),
        member(f"{PREFIX}/README.md", tarfile.BLKTYPE),
        member(f"{PREFIX}/README.md", tarfile.FIFOTYPE),
        member(f"{PREFIX}/README.md", tarfile.DIRTYPE),
        member(f"{PREFIX}/README.md", tarfile.CONTTYPE),
        member("other", tarfile.DIRTYPE),
        member("/models", tarfile.DIRTYPE),
        member("models/..", tarfile.DIRTYPE),
    ],
    ids=lambda bad: f"{bad[0].name} {bad[0].type!r}",
)
def test_a_hostile_layer_places_nothing(tmp_path: Path, bad: tuple[tarfile.TarInfo, bytes]) -> None:
    digest = image_with_layer(tmp_path / "layout", tar_of([*GOOD, bad]))
    with pytest.raises(LayerRefused):
        place_adapter(tmp_path / "layout", digest, "router", tmp_path / "out" / "placed")
    assert_nothing_placed(tmp_path / "out")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("sparse_map", [b"1\n0\n1\n", b"0\n"])
def test_a_sparse_member_is_refused(tmp_path: Path, sparse_map: bytes) -> None:
    """One that would unpack to 1 GiB from a few bytes."""
    info, data = member(f"{PREFIX}/README.md", data=sparse_map.ljust(512, b"\0") + b"x")
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "1073741824"}
    digest = image_with_layer(tmp_path / "layout", tar_of([*GOOD, (info, data)], tarfile.PAX_FORMAT))
    with pytest.raises(LayerRefused):
        place_adapter(tmp_path / "layout", digest, "router", tmp_path / "placed")
    assert not (tmp_path / "placed").exists()


@pytest.mark.parametrize("data", [b"", b"x", b"x" * 5000, bytes(1024), tar_of(GOOD)[:700], tar_of(GOOD[:1])])
def test_what_is_no_whole_adapter_is_refused(tmp_path: Path, data: bytes) -> None:
    digest = image_with_layer(tmp_path / "layout", data)
    with pytest.raises(LayerRefused):
        place_adapter(tmp_path / "layout", digest, "router", tmp_path / "out" / "placed")
    assert_nothing_placed(tmp_path / "out")


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(changes=st.lists(st.tuples(st.integers(0, 2047), st.integers(0, 255)), min_size=1, max_size=6))
def test_no_tar_gets_past_the_two_outcomes(tmp_path: Path, changes: list[tuple[int, int]]) -> None:
    """Any bytes under a right digest: the adapter's file names and nothing else, or LayerRefused."""
    data = bytearray(tar_of(GOOD))
    for offset, value in changes:
        data[offset] = value
    digest = image_with_layer(tmp_path / "layout", bytes(data))
    dest = tmp_path / "out" / digest.removeprefix("sha256:")
    try:
        place_adapter(tmp_path / "layout", digest, "router", dest)
    except LayerRefused:
        assert not dest.exists()
    else:
        assert set(listing(dest)) == {"adapter_config.json", "adapter_model.safetensors"}


def test_what_a_killed_placement_left_is_removed(tmp_path: Path) -> None:
    layout, image = build(tmp_path)
    dest = tmp_path / "out" / "rou*ter"
    left = tmp_path / "out" / ".rou*ter.liftlock-partial-abc"
    other = tmp_path / "out" / ".router.liftlock-partial-abc"
    left.mkdir(parents=True)
    other.mkdir()
    place_adapter(layout, image.digest, "router", dest)
    assert (dest.exists(), left.exists(), other.exists()) == (True, False, True)
