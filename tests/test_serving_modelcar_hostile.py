"""Hostile model folders and hostile layers, a thousand of them: refused or packed right, and nothing leaves its folder."""

import gzip
import hashlib
import io
import json
import os
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.modelcar import DigestMismatch, LayerRefused, ModelRefused, model_layers, put_manifest
from serving.modelcar.layout_store import LayoutStore
from serving.modelcar.pull import pull
from serving.modelcar.reference import parse_reference

THOUSAND = settings(max_examples=500, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)


def shard(header: str, data: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header.encode() + data


def tensor(begin: int, end: int, shape: int | None = None) -> str:
    return json.dumps({"dtype": "U8", "shape": [end - begin if shape is None else shape], "data_offsets": [begin, end]})


GOOD = {
    "config.json": b'{"model_type": "llama"}',
    "model.safetensors": shard(f'{{"w":{tensor(0, 4)}}}', b"abcd"),
    "README.md": b"# a card\n",
    "sub/note.txt": b"x" * 700,
}
LYING_HEADERS = {
    "overlap": shard(f'{{"a":{tensor(0, 3)},"b":{tensor(2, 4)}}}', b"abcd"),
    "outside": shard(f'{{"a":{tensor(0, 99)}}}', b"abcd"),
    "hole": shard(f'{{"a":{tensor(0, 1)},"b":{tensor(2, 4)}}}', b"abcd"),
    "twice": shard(f'{{"a":{tensor(0, 4)},"a":{tensor(0, 4)}}}', b"abcd"),
    "shape": shard(f'{{"a":{tensor(0, 4, shape=9)}}}', b"abcd"),
    "longer": shard(f'{{"a":{tensor(0, 4)}}}', b"abcdefgh"),
    "cut": struct.pack("<Q", 1 << 40) + b"{}",
    "negative": shard(f'{{"a":{tensor(-4, 0, shape=4)}}}', b"abcd"),
    "pickle": b"\x80\x04N." * 10,
}
Trick = Callable[[Path], object]


def write(name: str, data: bytes) -> Trick:
    def trick(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)

    return trick


def link(name: str, target: str) -> Trick:
    return lambda folder: (folder / name).symlink_to(target)


PICKLED = [
    f"weights{suffix}"
    for suffix in (".bin", ".pt", ".pth", ".pkl", ".PKL", ".ckpt", ".pickle", ".joblib", ".npz", ".h5")
]
MAGIC = (b"\x80\x02", b"\x80\x05", b"PK\x03\x04", b"\x7fELF", b"#!/bin/sh\n")
HOSTILE: dict[str, Trick] = {
    **{name: write(name, b"x") for name in PICKLED},
    **{name: write(name, b"x") for name in ("modeling.py", "sub/x.PY", "lib.so", "x.pyc", "run.sh")},
    **{f"disguise-{n}": write(f"tokenizer{n}.txt", head + b"rest") for n, head in enumerate(MAGIC)},
    **{f"header-{name}": write("model.safetensors", data) for name, data in LYING_HEADERS.items()},
    "auto_map": write("tokenizer_config.json", b'{"a": [{"auto_map": {}}]}'),
    "no-json": write("config.json", b"{"),
    "missing shard": write("model.safetensors.index.json", b'{"weight_map": {"w": "gone.safetensors"}}'),
    "case file": write("CONFIG.json", b"{}"),
    "case folder": write("SUB/other.txt", b"x"),
    "dots": write("x..y", b"x"),
    "backslash": write("a\\b", b"x"),
    "control": write("a\nb", b"x"),
    "right to left": write("gpj\u202eexe", b"x"),
    "decomposed": write("e\u0301.txt", b"x"),
    "adapters": write("adapters/x.txt", b"x"),
    "link out": link("passwd", "/etc/passwd"),
    "link up": link("up.txt", "../outside"),
    "link folder": link("folder", "sub"),
    "link loop": link("loop", "loop"),
    "link to nothing": link("gone", "nowhere"),
    "fifo": lambda folder: os.mkfifo(folder / "fifo"),
}  # fmt: skip
HARMLESS: dict[str, Trick] = {
    "hidden": write(".git/config", b"x"),
    "long name": write("n" * 200 + ".txt", b"x"),
    "deep": write("d/" * 40 + "x.txt", b"x"),
    "unicode": write("modèle-日本.txt", b"x"),
    "empty": write("empty.txt", b""),
    "link inside": link("again.txt", "sub/note.txt"),
    "odd sizes": write("odd.txt", b"y" * 513),
}


def contents(layers: object) -> dict[str, bytes]:
    """What Python's tarfile reads out of the layers, below models/."""
    found: dict[str, bytes] = {}
    for layer in layers:  # type: ignore[attr-defined]
        with tarfile.open(fileobj=io.BytesIO(b"".join(layer.stream()))) as tar:
            for member in tar.getmembers():
                if member.isfile():
                    found[member.name.removeprefix("models/")] = tar.extractfile(member).read()  # type: ignore[union-attr]
    return found


@THOUSAND
@given(
    hostile=st.lists(st.sampled_from(sorted(HOSTILE)), max_size=2, unique=True),
    harmless=st.lists(st.sampled_from(sorted(HARMLESS)), max_size=3, unique=True),
)
def test_a_hostile_folder_is_refused_and_others_are_packed_right(
    tmp_path_factory: pytest.TempPathFactory, hostile: list[str], harmless: list[str]
) -> None:
    root = tmp_path_factory.mktemp("folder")
    (root / "outside").write_text("secret")
    folder = root / "model"
    for name, data in GOOD.items():
        write(name, data)(folder)
    for name in harmless:
        HARMLESS[name](folder)
    for name in hostile:
        HOSTILE[name](folder)
    if hostile:
        with pytest.raises(ModelRefused):
            model_layers(folder, None, None)
        return
    expected = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".git" not in path.parts
    }
    assert contents(model_layers(folder, None, None)) == expected


NAMES = st.sampled_from(
    [
        "models/config.json", "models/a.txt", "models/sub/b.txt", "models/A.txt", "models/a.txt/below", "models/" + "n" * 180,
        "models", "models/", "models/sub", "bin/sh", "mnt", "models/.hidden", "models/.wh.config.json", "models/x.pkl", "models/x.py",
        "models/../escape", "../escape", "/escape", "models//escape", "models/sub/../../../escape", "./models/a.txt", "models/a\\b",
        "models/\x07", "modelsx/escape", "models/~", "models/e\u0301", "C:\\escape", "etc/passwd",
    ]
)  # fmt: skip
KINDS = st.sampled_from([tarfile.REGTYPE] * 6 + [tarfile.DIRTYPE] * 2 + [
    tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.CONTTYPE, tarfile.GNUTYPE_SPARSE,
])  # fmt: skip
MEMBERS = st.lists(st.tuples(NAMES, KINDS, st.binary(max_size=700)), min_size=1, max_size=5)
DAMAGE = st.sampled_from(["none", "none", "none", "flip", "cut", "header", "gzip", "garbage", "wrong digest"])


def tar_of(members: list[tuple[str, bytes, bytes]], form: int) -> bytes:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=form) as tar:
        for name, kind, data in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "../../escape" if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
            info.size = len(data) if kind in (tarfile.REGTYPE, tarfile.CONTTYPE, tarfile.GNUTYPE_SPARSE) else 0
            tar.addfile(info, io.BytesIO(data))
    return output.getvalue()


def damaged(data: bytes, damage: str, at: int) -> bytes:
    at %= len(data)
    if damage == "flip":
        return data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :]
    if damage == "cut":
        return data[:at]
    if damage == "header":
        return data[:124] + b"\xff" * 12 + data[136:]  # the size field of the first member, as a negative number
    if damage == "gzip":
        return gzip.compress(data)
    return os.urandom(at) if damage == "garbage" else data


def layout_with(root: Path, layers: list[bytes], lie: bool) -> tuple[LayoutStore, str]:
    """An image whose manifest names the layers by their digests; with `lie` the first blob holds other bytes."""
    folder = root / "layout"
    (folder / "blobs" / "sha256").mkdir(parents=True)
    described = []
    for number, data in enumerate([b"{}", *layers]):
        name = hashlib.sha256(data).hexdigest()
        stored = data[:-1] + bytes([data[-1] ^ 1]) if lie and number == 1 and data else data
        (folder / "blobs" / "sha256" / name).write_bytes(stored)
        described.append({"mediaType": "application/x", "digest": f"sha256:{name}", "size": len(data)})
    document = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json"}
    digest, _ = put_manifest(
        folder, json.dumps(document | {"config": described[0], "layers": described[1:]}).encode(), None
    )
    return LayoutStore(parse_reference(f"oci:{folder}")), digest


@THOUSAND
@given(
    members=st.lists(MEMBERS, min_size=1, max_size=2),
    form=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    damage=DAMAGE,
    at=st.integers(0, 1 << 20),
)
def test_a_hostile_layer_never_leaves_its_folder(
    tmp_path_factory: pytest.TempPathFactory,
    members: list[list[tuple[str, bytes, bytes]]],
    form: int,
    damage: str,
    at: int,
) -> None:
    root = tmp_path_factory.mktemp("layer")
    (root / "escape").write_text("untouched")
    (root / "inner").mkdir()
    layers = [damaged(tar_of(listed, form), damage, at) for listed in members]
    store, digest = layout_with(root / "store", layers, lie=damage == "wrong digest")
    target = root / "inner" / "model"
    try:
        pulled = pull(store, digest, target)
    except (LayerRefused, DigestMismatch):
        assert not os.path.lexists(target)
        pulled = None
    assert (root / "escape").read_text() == "untouched"
    assert sorted(path.name for path in root.iterdir()) == ["escape", "inner", "store"]
    assert [path.name for path in (root / "inner").iterdir()] == (["model"] if pulled else [])
    assert not (damage == "wrong digest" and pulled)
    if pulled is None:
        return
    placed = {str(path.relative_to(target)): path for path in target.rglob("*") if not path.is_dir()}
    assert set(placed) == set(pulled.files)
    assert not any(path.is_symlink() or not path.is_file() for path in placed.values())
    written = {
        name.removeprefix("models/"): data
        for listed in members
        for name, kind, data in listed
        if kind == tarfile.REGTYPE
    }
    if damage == "none":
        assert {name: path.read_bytes() for name, path in placed.items()} == {
            name: data for name, data in written.items() if name in placed
        }
