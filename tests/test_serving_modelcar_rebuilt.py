"""A cleverer hand than a damaged disk's changes a signed image: every digest is right again, and only the key is missing.

Each change is refused, and the error says which part was changed.
"""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from serving.modelcar import ImageStore, parse_reference
from serving.modelcar.envelope import BUNDLE_TYPE
from serving.modelcar.keys import new_key
from serving.modelcar.referrers import list_referrers
from serving.modelcar.signature import SIGNATURE_ANNOTATION, tag_of
from serving.modelcar.signed import (
    AttestationMissing,
    AttestationTampered,
    IndexTampered,
    SignatureForeign,
    SignatureTampered,
    Unsigned,
)
from serving.modelcar.verify import ManifestTampered, TagMoved, verify
from tests.fix_signing import Refusal, SignedLayout, check_refused, overwrite

STATEMENTS = range(5)  # signature, SBOM, verdict, content, provenance
LAYERS = range(4)
LEGACY = range(3)


def edit(store: ImageStore, tag: str, change: Callable[[dict[str, Any]], None]) -> None:
    """Stores a changed manifest under the tag of the old one."""
    document = store.get_manifest(tag).json()
    change(document)
    store.put_manifest(json.dumps(document).encode(), tag)


def dropped_layer(number: int) -> Callable[[dict[str, Any]], None]:
    return lambda document: document["layers"].pop(number)


MANIFEST_EDITS: dict[str, Callable[[dict[str, Any]], None]] = {
    **{f"drop-layer{number}": dropped_layer(number) for number in LAYERS},
    **{
        f"layer{number}-of-config": lambda document, number=number: document["layers"][number].update(
            digest=document["config"]["digest"], size=document["config"]["size"]
        )
        for number in LAYERS
    },
    "repeat-layer": lambda document: document["layers"].append(document["layers"][0]),
    "reverse-layers": lambda document: document["layers"].reverse(),
    "no-layers": lambda document: document["layers"].clear(),
    "rename-annotation": lambda document: document["annotations"].update({"org.opencontainers.image.title": "x"}),
    "add-annotation": lambda document: document["annotations"].update({"x": "y"}),
    "retitle": lambda document: document["layers"][0]["annotations"].update({"org.opencontainers.image.title": "x"}),
    "media-type": lambda document: document["layers"][0].update(mediaType="application/octet-stream"),
    "size": lambda document: document["layers"][0].update(size=1),
}


@pytest.mark.parametrize("change", MANIFEST_EDITS)
def test_another_manifest_under_the_tag_is_refused(signed_layout: SignedLayout, tmp_path: Path, change: str) -> None:
    layout = signed_layout.moved(tmp_path / "layout")
    with layout.open() as store:
        edit(store, "router-1", MANIFEST_EDITS[change])
        assert check_refused(layout, TagMoved)
        with pytest.raises((Unsigned, ManifestTampered)):  # by the tag alone
            verify(parse_reference(f"oci:{layout.folder}:router-1"), layout.key.public, store)


def untag(layout: SignedLayout, tag: str) -> None:
    index = json.loads((layout.folder / "index.json").read_bytes())
    for entry in index["manifests"]:
        if entry.get("annotations", {}).get("org.opencontainers.image.ref.name") == tag:
            del entry["annotations"]
    overwrite(layout.folder / "index.json", json.dumps(index).encode())


def test_a_tag_that_moved_away_is_refused(signed_layout: SignedLayout, tmp_path: Path) -> None:
    layout = signed_layout.moved(tmp_path / "layout")
    with layout.open() as store:
        store.put_manifest(store.get_manifest("router-2").data, "router-1")
    assert check_refused(layout, TagMoved)
    untag(layout, "router-1")
    assert check_refused(layout, TagMoved)


@pytest.mark.parametrize(
    ("suffix", "refused"), [(".sig", Unsigned), (".att", AttestationMissing), ("", AttestationMissing)]
)
def test_a_removed_tag_is_refused(signed_layout: SignedLayout, tmp_path: Path, suffix: str, refused: Refusal) -> None:
    layout = signed_layout.moved(tmp_path / "layout")
    untag(layout, tag_of(layout.signed.digest, suffix))
    assert check_refused(layout, refused)


@pytest.mark.parametrize(
    ("suffix", "refused"), [(".sig", SignatureTampered), (".att", AttestationMissing), ("", AttestationTampered)]
)
@pytest.mark.parametrize("also", [False, True])
def test_what_was_signed_for_another_image_is_refused(
    signed_layout: SignedLayout, tmp_path: Path, suffix: str, refused: Refusal, also: bool
) -> None:
    layout = signed_layout.moved(tmp_path / "layout")
    with layout.open() as store:
        for each in (suffix, ".att") if also else (suffix,):
            data = store.get_manifest(tag_of(layout.other.digest, each)).data
            store.put_manifest(data, tag_of(layout.signed.digest, each))
    assert check_refused(layout, refused)


def signed_again(store: ImageStore, data: bytes, signature: bytes) -> Callable[[dict[str, Any]], None]:
    """Replaces the signature layer's payload and signature."""
    digest = store.put_blob(data)
    annotations = {SIGNATURE_ANNOTATION: base64.b64encode(signature).decode()}
    return lambda document: document["layers"][0].update(digest=digest, size=len(data), annotations=annotations)


PAYLOAD_EDITS: dict[str, Callable[[dict[str, Any]], None]] = {
    "identity": lambda payload: payload["critical"]["identity"].update({"docker-reference": "evil/x"}),
    "digest": lambda payload: payload["critical"]["image"].update({"docker-manifest-digest": f"sha256:{'0' * 64}"}),
    "type": lambda payload: payload["critical"].update(type="atomic container signature"),
    "fewer-statements": lambda payload: payload["optional"].popitem(),
    "no-statements": lambda payload: payload.update(optional=None),
    "further-statement": lambda payload: payload["optional"].update({"dev.liftlock.statement/x": "sha256:0"}),
}


@pytest.mark.parametrize("change", PAYLOAD_EDITS)
@pytest.mark.parametrize("foreign", [False, True])
def test_a_changed_payload_is_refused(signed_layout: SignedLayout, tmp_path: Path, change: str, foreign: bool) -> None:
    layout = signed_layout.moved(tmp_path / "layout")
    with layout.open() as store:
        tag = tag_of(layout.signed.digest, ".sig")
        layer = store.get_manifest(tag).json()["layers"][0]
        payload = json.loads(store.get_blob(layer["digest"], 1 << 20))
        PAYLOAD_EDITS[change](payload)
        data = json.dumps(payload).encode()
        old = base64.b64decode(layer["annotations"][SIGNATURE_ANNOTATION])
        edit(store, tag, signed_again(store, data, new_key().sign(data) if foreign else old))
    assert check_refused(layout, SignatureForeign)


SIGNATURE_EDITS: dict[str, tuple[Callable[[dict[str, Any]], Any], Refusal]] = {
    "no-layers": (lambda document: document["layers"].clear(), SignatureForeign),
    "no-annotations": (lambda document: document["layers"][0].pop("annotations"), SignatureTampered),
    "no-signature": (lambda document: document["layers"][0]["annotations"].clear(), SignatureTampered),
    "not-base64": (
        lambda document: document["layers"][0]["annotations"].update({SIGNATURE_ANNOTATION: "%%"}), SignatureTampered
    ),
    "empty-signature": (
        lambda document: document["layers"][0]["annotations"].update({SIGNATURE_ANNOTATION: ""}), SignatureForeign
    ),
    "other-signature": (
        lambda document: document["layers"][0]["annotations"].update({SIGNATURE_ANNOTATION: "AAAA"}), SignatureForeign
    ),
    "media-type": (lambda document: document["layers"][0].update(mediaType="text/plain"), SignatureTampered),
    "size": (lambda document: document["layers"][0].update(size=3), SignatureTampered),
    "size-kind": (lambda document: document["layers"][0].update(size="3"), SignatureTampered),
    "huge": (lambda document: document["layers"][0].update(size=1 << 40), SignatureTampered),
    "no-digest": (lambda document: document["layers"][0].pop("digest"), SignatureTampered),
    "path-as-digest": (lambda document: document["layers"][0].update(digest="sha256:../../x"), SignatureTampered),
    "layers-kind": (lambda document: document.update(layers={"a": 1}), SignatureTampered),
    "no-list": (lambda document: document.pop("layers"), SignatureTampered),
}  # fmt: skip


@pytest.mark.parametrize("change", SIGNATURE_EDITS)
def test_a_changed_signature_manifest_is_refused(signed_layout: SignedLayout, tmp_path: Path, change: str) -> None:
    layout = signed_layout.moved(tmp_path / "layout")
    apply, refused = SIGNATURE_EDITS[change]
    with layout.open() as store:
        edit(store, tag_of(layout.signed.digest, ".sig"), apply)
    assert check_refused(layout, refused)


ENTRY_EDITS: dict[str, tuple[Callable[[dict[str, Any]], Any], Refusal]] = {
    "drop": (lambda entry: entry.clear(), IndexTampered),
    "hide-type": (lambda entry: entry.update(artifactType="application/vnd.oci.empty.v1+json"), AttestationMissing),
    "no-type": (lambda entry: entry.pop("artifactType"), AttestationMissing),
    "size": (lambda entry: entry.update(size=entry["size"] + 1), AttestationTampered),
    "size-kind": (lambda entry: entry.update(size=None), IndexTampered),
    "dangling": (lambda entry: entry.update(digest=f"sha256:{'0' * 64}"), AttestationTampered),
    "no-digest": (lambda entry: entry.update(digest="sha256:x"), AttestationTampered),
}


@pytest.mark.parametrize("number", STATEMENTS)
@pytest.mark.parametrize("change", ENTRY_EDITS)
def test_a_changed_list_of_referrers_is_refused(
    signed_layout: SignedLayout, tmp_path: Path, change: str, number: int
) -> None:
    layout = signed_layout.moved(tmp_path / "layout")
    apply, refused = ENTRY_EDITS[change]
    with layout.open() as store:
        edit(store, tag_of(layout.signed.digest, ""), lambda index: apply(index["manifests"][number]))
    assert check_refused(layout, refused)


@pytest.mark.parametrize("number", STATEMENTS)
def test_a_removed_statement_is_missed(signed_layout: SignedLayout, tmp_path: Path, number: int) -> None:
    layout = signed_layout.moved(tmp_path / "layout")
    with layout.open() as store:
        edit(store, tag_of(layout.signed.digest, ""), lambda index: index["manifests"].pop(number))
    assert check_refused(layout, AttestationMissing)


@pytest.mark.parametrize("broken", ["text", "list", "kind"])
def test_a_list_that_is_none_is_refused(signed_layout: SignedLayout, tmp_path: Path, broken: str) -> None:
    layout = signed_layout.moved(tmp_path / "layout")
    values = {"text": "no", "list": [1], "kind": {"digest": "sha256:0"}}
    with layout.open() as store:
        edit(store, tag_of(layout.signed.digest, ""), lambda index: index.update(manifests=values[broken]))
    assert check_refused(layout, IndexTampered)


def rebuilt(store: ImageStore, layout: SignedLayout, number: int, change: Callable[[dict[str, Any]], Any]) -> None:
    """Changes a bundle, and then its manifest and the list so that all digests are right."""
    tag = tag_of(layout.signed.digest, "")
    index = store.get_manifest(tag).json()
    entry = index["manifests"][number]
    manifest = store.get_manifest(entry["digest"]).json()
    bundle = json.loads(store.get_blob(manifest["layers"][0]["digest"], 1 << 24))
    change(bundle)
    data = json.dumps(bundle).encode()
    manifest["layers"][0] |= {"digest": store.put_blob(data), "size": len(data)}
    document = json.dumps(manifest).encode()
    entry |= {"digest": store.put_manifest(document, None), "size": len(document)}
    store.put_manifest(json.dumps(index).encode(), tag)


def statement_edit(change: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], None]:
    def apply(bundle: dict[str, Any]) -> None:
        envelope = bundle["dsseEnvelope"]
        value = json.loads(base64.b64decode(envelope["payload"]))
        change(value)
        envelope["payload"] = base64.b64encode(json.dumps(value).encode()).decode()

    return apply


def signed_by_another(bundle: dict[str, Any]) -> None:
    envelope = bundle["dsseEnvelope"]
    payload, kind = base64.b64decode(envelope["payload"]), envelope["payloadType"].encode()
    # DSSE's encoding, written out: https://github.com/secure-systems-lab/dsse/blob/v1.0.2/protocol.md
    encoded = b"DSSEv1 " + str(len(kind)).encode() + b" " + kind + b" " + str(len(payload)).encode() + b" " + payload
    envelope["signatures"][0]["sig"] = base64.b64encode(new_key().sign(encoded)).decode()


BUNDLE_EDITS: dict[str, tuple[Callable[[dict[str, Any]], Any], Refusal]] = {
    "predicate": (statement_edit(lambda value: value["predicate"].update(x=1)), AttestationTampered),
    "predicate-type": (statement_edit(lambda value: value.update(predicateType="https://x/y")), AttestationTampered),
    "subject": (
        statement_edit(lambda value: value["subject"][0].update(digest={"sha256": "0" * 64})), AttestationTampered
    ),
    "no-subject": (statement_edit(lambda value: value["subject"].clear()), AttestationTampered),
    "key": (signed_by_another, AttestationTampered),
    "key-and-hint": (
        lambda bundle: (
            signed_by_another(bundle),
            bundle["verificationMaterial"]["publicKey"].update(hint=new_key().public.hint),
        ),
        AttestationMissing,
    ),
    "hint": (lambda bundle: bundle["verificationMaterial"]["publicKey"].update(hint="x"), AttestationTampered),
    "no-material": (lambda bundle: bundle.pop("verificationMaterial"), AttestationTampered),
    "payload-type": (lambda bundle: bundle["dsseEnvelope"].update(payloadType="text/plain"), AttestationTampered),
    "no-signatures": (lambda bundle: bundle["dsseEnvelope"]["signatures"].clear(), AttestationTampered),
    "two-signatures": (
        lambda bundle: bundle["dsseEnvelope"]["signatures"].append(bundle["dsseEnvelope"]["signatures"][0]),
        AttestationTampered,
    ),
    "media-type": (lambda bundle: bundle.update(mediaType="application/json"), AttestationTampered),
    "no-envelope": (lambda bundle: bundle.pop("dsseEnvelope"), AttestationTampered),
}  # fmt: skip


@pytest.mark.parametrize("number", STATEMENTS)
@pytest.mark.parametrize("change", BUNDLE_EDITS)
def test_a_rebuilt_bundle_is_refused(signed_layout: SignedLayout, tmp_path: Path, change: str, number: int) -> None:
    layout = signed_layout.moved(tmp_path / "layout")
    apply, refused = BUNDLE_EDITS[change]
    with layout.open() as store:
        rebuilt(store, layout, number, apply)
    assert check_refused(layout, refused)


def test_a_bundle_filed_for_another_image_is_refused(signed_layout: SignedLayout, tmp_path: Path) -> None:
    layout = signed_layout.moved(tmp_path / "layout")
    with layout.open() as store:
        foreign = list_referrers(store, layout.other.digest)[1]
        edit(store, tag_of(layout.signed.digest, ""), lambda index: index["manifests"].append(foreign))
    assert check_refused(layout, AttestationTampered)


LEGACY_EDITS: dict[str, tuple[Callable[[dict[str, Any], int], Any], Refusal]] = {
    "drop": (lambda document, number: document["layers"].pop(number), AttestationMissing),
    "retype": (
        lambda document, number: document["layers"][number]["annotations"].update(predicateType="https://x/y"),
        AttestationTampered,
    ),
    "media-type": (
        lambda document, number: document["layers"][number].update(mediaType=BUNDLE_TYPE), AttestationTampered
    ),
    "repoint": (
        lambda document, number: document["layers"][number].update(
            {key: document["layers"][number - 1][key] for key in ("digest", "size")}
        ),
        AttestationTampered,
    ),
    "no-annotations": (lambda document, number: document["layers"][number].pop("annotations"), AttestationTampered),
}  # fmt: skip


@pytest.mark.parametrize("number", LEGACY)
@pytest.mark.parametrize("change", LEGACY_EDITS)
def test_changed_attestations_for_cosign_are_refused(
    signed_layout: SignedLayout, tmp_path: Path, change: str, number: int
) -> None:
    layout = signed_layout.moved(tmp_path / "layout")
    apply, refused = LEGACY_EDITS[change]
    with layout.open() as store:
        edit(store, tag_of(layout.signed.digest, ".att"), lambda document: apply(document, number))
    assert check_refused(layout, refused)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"manifests": 1}', '{"manifests": [{"digest": 1}]}', '{"manifests": [', "\0"]
)
def test_a_damaged_layout_index_is_refused(signed_layout: SignedLayout, tmp_path: Path, text: str) -> None:
    layout = signed_layout.moved(tmp_path / "layout")
    overwrite(layout.folder / "index.json", text.encode())
    assert check_refused(layout, (IndexTampered, TagMoved))


def test_there_are_at_least_150_kinds() -> None:
    of_statements = len(STATEMENTS) * (len(BUNDLE_EDITS) + len(ENTRY_EDITS) + 1) + len(LEGACY) * len(LEGACY_EDITS)
    assert of_statements + len(MANIFEST_EDITS) + len(SIGNATURE_EDITS) + 2 * len(PAYLOAD_EDITS) >= 150
