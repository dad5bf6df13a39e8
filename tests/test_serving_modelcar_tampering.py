"""Bytes of a signed image change under their name, as on a damaged disk or in a registry that serves wrong content.

Every kind of change is refused, and the error says which part was changed.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from serving.modelcar import ImageMissing, ImageStore, parse_reference
from serving.modelcar.referrers import list_referrers
from serving.modelcar.signature import tag_of
from serving.modelcar.signed import (
    AttestationTampered,
    IndexTampered,
    SignatureTampered,
)
from serving.modelcar.verify import RELEASE, LayerTampered, ManifestTampered, verify
from tests.fix_signing import Refusal, SignedLayout, check_refused, overwrite

STATEMENTS = range(5)  # signature, SBOM, verdict, content, provenance
LAYERS = range(4)
LEGACY = range(3)


def test_untouched_it_is_verified(signed_layout: SignedLayout) -> None:
    reference = parse_reference(f"oci:{signed_layout.folder}:router-1@{signed_layout.signed.digest}")
    with signed_layout.open() as store:
        verified = verify(reference, signed_layout.key.public, store, required=RELEASE)
    assert verified.statements == signed_layout.signed.statements
    assert verified.verdict == "PASSED"


# --- bytes change under their name -------------------------------------------------------------------------------------


def parts(store: ImageStore, digest: str) -> dict[str, tuple[str, Refusal]]:
    """The digest of each document and blob of a signed image by its role, and who must notice that it changed."""
    image = store.get_manifest(digest)
    sig, att = (store.get_manifest(tag_of(digest, suffix)) for suffix in (".sig", ".att"))
    found: dict[str, tuple[str, Refusal]] = {
        "manifest": (digest, ManifestTampered),
        "config": (image.json()["config"]["digest"], LayerTampered),
        "signature": (sig.digest, SignatureTampered),
        "payload": (sig.json()["layers"][0]["digest"], SignatureTampered),
        "attestations": (att.digest, AttestationTampered),
        "index": (store.get_manifest(tag_of(digest, "")).digest, IndexTampered),
    }
    for number, layer in enumerate(image.json()["layers"]):
        found[f"layer{number}"] = (layer["digest"], LayerTampered)
    for number, layer in enumerate(att.json()["layers"]):
        found[f"attestation{number}"] = (layer["digest"], AttestationTampered)
    for number, entry in enumerate(list_referrers(store, digest)):
        found[f"referrer{number}"] = (entry["digest"], AttestationTampered)
        bundle = store.get_manifest(entry["digest"]).json()["layers"][0]["digest"]
        found[f"bundle{number}"] = (bundle, AttestationTampered)
    return found


ROLES = (
    "manifest", "config", "signature", "payload", "attestations", "index",
    *(f"layer{number}" for number in LAYERS), *(f"attestation{number}" for number in LEGACY),
    *(f"{kind}{number}" for number in STATEMENTS for kind in ("referrer", "bundle")),
)  # fmt: skip


def flipped(data: bytes, place: int, mask: int) -> bytes:
    changed = bytearray(data)
    changed[place] ^= mask
    return bytes(changed)


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "flip-first": lambda data: flipped(data, 0, 1),
    "flip-middle": lambda data: flipped(data, len(data) // 2, 4),
    "flip-last": lambda data: flipped(data, -1, 128),
    "truncate-one": lambda data: data[:-1],
    "truncate-half": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "append": lambda data: data + b"\n",
    "zeros": lambda data: bytes(len(data)),
}


def blob(layout: SignedLayout, digest: str) -> Path:
    return layout.folder / "blobs" / "sha256" / digest.removeprefix("sha256:")


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("role", ROLES)
def test_changed_bytes_are_refused(signed_layout: SignedLayout, tmp_path: Path, role: str, damage: str) -> None:
    layout = signed_layout.moved(tmp_path / "layout")
    with layout.open() as store:
        digest, refused = parts(store, layout.signed.digest)[role]
    path = blob(layout, digest)
    overwrite(path, DAMAGE[damage](path.read_bytes()))
    assert check_refused(layout, refused)


@pytest.mark.parametrize("how", ["drop", "rename", "swap", "link"])
@pytest.mark.parametrize("role", ROLES)
def test_moved_files_are_refused(signed_layout: SignedLayout, tmp_path: Path, role: str, how: str) -> None:
    layout = signed_layout.moved(tmp_path / "layout")
    with layout.open() as store:
        digest, refused = parts(store, layout.signed.digest)[role]
        twin = parts(store, layout.other.digest)["config" if role.startswith("layer") else role][0]
    path = blob(layout, digest)
    if how == "swap":
        overwrite(path, blob(layout, twin).read_bytes())
    else:
        path.rename(path.with_name("0" * 64)) if how == "rename" else path.unlink()
    if how == "link":
        path.symlink_to(blob(layout, twin))
    assert check_refused(layout, (refused, ImageMissing) if role == "manifest" else refused)


def test_there_are_at_least_200_kinds() -> None:
    assert len(ROLES) * (len(DAMAGE) + 4) >= 200
