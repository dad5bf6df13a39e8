"""Signing and verifying: what is written, that it is the same every time, who may sign beside, and what is required."""

import hashlib
import json
from pathlib import Path

import pytest

from serving.modelcar import DigestMismatch, ImageMissing, model_layers, open_store, parse_reference
from serving.modelcar.attest import (
    PROVENANCE,
    VERDICT,
    Material,
    PredicateInvalid,
    Provenance,
    Verdict,
    provenance_predicate,
    verdict_predicate,
)
from serving.modelcar.content import (
    ContentMismatch,
    FileDigest,
    check_folder,
    content_statement,
    hash_files,
    hash_sources,
)
from serving.modelcar.document import DocumentInvalid
from serving.modelcar.envelope import EnvelopeInvalid, pae, parse_bundle, parse_statement
from serving.modelcar.keys import new_key
from serving.modelcar.layer import ModelChanged
from serving.modelcar.sbom import sbom
from serving.modelcar.sign import sign
from serving.modelcar.signature import Claim, parse_payload, payload, tag_of
from serving.modelcar.signed import AttestationMissing, SignatureForeign, Unsigned, VerificationFailed
from serving.modelcar.verify import (
    ALWAYS_SIGNED,
    RELEASE,
    EvidenceMissing,
    SignatureReplaced,
    VerdictRefused,
    verify,
)
from tests.fix_modelcar import build, make_adapter, make_base
from tests.fix_signing import IDENTITY, PREDICATES, SignedLayout, sign_two


def reference(layout: SignedLayout) -> str:
    return f"oci:{layout.folder}:router-1@{layout.signed.digest}"


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def test_verify_tells_what_was_signed(signed_layout: SignedLayout, tmp_path: Path) -> None:
    seen: list[int] = []
    with signed_layout.open() as store:
        verified = verify(
            parse_reference(reference(signed_layout)), signed_layout.key.public, store, report=seen.append, workers=1
        )
        manifest = store.get_manifest(signed_layout.signed.digest).json()
    size = sum(blob["size"] for blob in (manifest["config"], *manifest["layers"]))
    assert (verified.bytes_read, sum(seen)) == (size, size)
    assert (verified.identity, verified.verdict) == (IDENTITY, "PASSED")
    assert verified.reference.endswith(f"@{signed_layout.signed.digest}")
    make_base(tmp_path / "models")
    make_adapter(tmp_path / "models" / "adapters" / "router")
    for hidden in (".gitattributes", ".cache/x.bin", "adapters/router/trainer_state.json"):  # no image holds these
        (tmp_path / "models" / hidden).unlink()
    check_folder(tmp_path / "models", verified.files)


def test_signing_again_writes_nothing(signed_layout: SignedLayout, tmp_path: Path) -> None:
    layout = signed_layout.moved(tmp_path / "layout")
    before = contents(layout.folder)
    with layout.open() as store:
        again = sign(store, layout.signed.digest, layout.key, IDENTITY, predicates=PREDICATES)
    assert again == layout.signed
    assert contents(layout.folder) == before


def test_evidence_may_come_later_and_what_was_attested_stays(tmp_path: Path) -> None:
    layout = sign_two(tmp_path, new_key(), {PROVENANCE: PREDICATES[PROVENANCE]})
    with layout.open() as store:
        with pytest.raises(AttestationMissing, match="test-result"):
            verify(parse_reference(reference(layout)), layout.key.public, store, required=RELEASE)
        sign(store, layout.signed.digest, layout.key, IDENTITY, predicates={VERDICT: PREDICATES[VERDICT]})
        later = verify(parse_reference(reference(layout)), layout.key.public, store, required=RELEASE)
        assert dict(later.statements).items() >= dict(layout.signed.statements).items()
        sign(store, layout.signed.digest, layout.key, IDENTITY, fresh=True)
        without = verify(parse_reference(reference(layout)), layout.key.public, store)
    assert {kind for kind, _ in without.statements} == set(ALWAYS_SIGNED)


@pytest.mark.parametrize("suffix", [".sig", ".att", ""])
@pytest.mark.parametrize("key", ["layers", "manifests"])
def test_fresh_is_the_way_out_of_damage(signed_layout: SignedLayout, tmp_path: Path, suffix: str, key: str) -> None:
    layout = signed_layout.moved(tmp_path / "layout")
    image, tag = parse_reference(reference(layout)), tag_of(layout.signed.digest, suffix)
    with layout.open() as store:
        document = store.get_manifest(tag).json() | {key: [{"digest": 1}]}
        store.put_manifest(json.dumps(document).encode(), tag)
        if (key == "layers") == bool(suffix):
            with pytest.raises(VerificationFailed):
                verify(image, layout.key.public, store)
            with pytest.raises(VerificationFailed, match="--fresh"):
                sign(store, layout.signed.digest, layout.key, IDENTITY)
        sign(store, layout.signed.digest, layout.key, IDENTITY, predicates=PREDICATES, fresh=True)
        assert verify(image, layout.key.public, store, required=RELEASE).statements == layout.signed.statements


def test_two_parties_may_sign_one_image(signed_layout: SignedLayout, tmp_path: Path) -> None:
    layout, second = signed_layout.moved(tmp_path / "layout"), new_key()
    with layout.open() as store:
        sign(store, layout.signed.digest, second, IDENTITY, predicates=PREDICATES)
        for key in (layout.key, second):
            verified = verify(parse_reference(reference(layout)), key.public, store, required=RELEASE)
            assert verified.key == key.public.fingerprint
        with pytest.raises(SignatureForeign):
            verify(parse_reference(reference(layout)), new_key().public, store)


def test_an_unsigned_image_is_refused(tmp_path: Path) -> None:
    layout, _ = build(tmp_path, tag="router-1")
    with open_store(parse_reference(f"oci:{layout}")) as store:
        with pytest.raises(Unsigned, match="liftlock modelcar sign"):
            verify(parse_reference(f"oci:{layout}:router-1"), new_key().public, store)
        with pytest.raises(ImageMissing):
            verify(parse_reference(f"oci:{layout}:router-9"), new_key().public, store)


@pytest.mark.parametrize("verdict", ["rejected", "inconclusive"])
def test_only_a_passed_verdict_serves(tmp_path: Path, verdict: str) -> None:
    found = verdict_predicate(Verdict(verdict, {"eval report": "b" * 64}, (), ("accuracy",)))  # type: ignore[arg-type]
    layout = sign_two(tmp_path, new_key(), {**PREDICATES, VERDICT: found})
    with layout.open() as store:
        assert verify(parse_reference(reference(layout)), layout.key.public, store).verdict in ("FAILED", "WARNED")
        with pytest.raises(VerdictRefused):
            verify(parse_reference(reference(layout)), layout.key.public, store, required=RELEASE)


def test_the_ledger_must_name_the_image(signed_layout: SignedLayout) -> None:
    image, key = parse_reference(reference(signed_layout)), signed_layout.key.public
    with signed_layout.open() as store:
        assert verify(image, key, store, recorded=[signed_layout.signed.digest]).digest == signed_layout.signed.digest
        for recorded in ([], [signed_layout.other.digest]):
            with pytest.raises(EvidenceMissing):
                verify(image, key, store, recorded=recorded)


def test_an_earlier_signature_brought_back_is_told_from_the_recorded_one(tmp_path: Path) -> None:
    layout = sign_two(tmp_path, new_key(), {**PREDICATES})
    before = layout.moved(tmp_path / "before")
    with layout.open() as store:
        found = verdict_predicate(Verdict("rejected", {}, (), ("accuracy",)))
        later = sign(store, layout.signed.digest, layout.key, IDENTITY, predicates={VERDICT: found})
    with before.open() as store:
        image = parse_reference(reference(before))
        assert verify(image, layout.key.public, store, payload=before.signed.payload_digest).verdict == "PASSED"
        with pytest.raises(SignatureReplaced):
            verify(image, layout.key.public, store, payload=later.payload_digest)


def test_nothing_is_signed_from_a_damaged_layer(tmp_path: Path) -> None:
    layout, image = build(tmp_path)
    layer = layout / "blobs" / "sha256" / image.layers[0].digest.removeprefix("sha256:")
    layer.write_bytes(layer.read_bytes()[:-1] + b"x")
    with open_store(parse_reference(f"oci:{layout}")) as store:
        with pytest.raises(DigestMismatch):
            sign(store, image.digest, new_key(), IDENTITY)
        assert store.tags() == ()


def test_an_index_is_not_signed_as_a_model(signed_layout: SignedLayout, tmp_path: Path) -> None:
    layout = signed_layout.moved(tmp_path / "layout")
    index = json.dumps(
        {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []}
    ).encode()
    with layout.open() as store:
        digest = store.put_manifest(index, "multi")
        with pytest.raises(DocumentInvalid, match="not an index"):
            sign(store, digest, layout.key, IDENTITY)


def test_files_hashed_at_the_build_are_those_of_the_layers(tmp_path: Path) -> None:
    base, adapter = make_base(tmp_path / "base"), make_adapter(tmp_path / "adapter")
    layers = model_layers(base, adapter, "router")
    layout, image = build(tmp_path / "built")
    with open_store(parse_reference(f"oci:{layout}")) as store:
        key = new_key()
        read = sign(store, image.digest, key, IDENTITY, fresh=True)
        given = sign(store, image.digest, key, IDENTITY, files=hash_sources(layers), fresh=True)
    assert given == read
    (base / "config.json").write_text('{"model_type": "other"}')
    with pytest.raises(ModelChanged):
        hash_sources(layers)


def test_a_changed_folder_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "a").write_text("a")
    (folder / "b").write_text("b")
    files = hash_files({"a": folder / "a", "b": folder / "b"})
    check_folder(folder, files)
    (folder / "b").write_text("c")
    with pytest.raises(ContentMismatch, match="/b has sha256"):
        check_folder(folder, files)
    (folder / "b").unlink()
    with pytest.raises(ContentMismatch, match="lacks b"):
        check_folder(folder, files)
    (folder / "b").symlink_to(folder / "a")
    with pytest.raises(ContentMismatch, match="is a link"):
        check_folder(folder, files)
    (folder / "b").unlink()
    (folder / "b").write_text("b")
    (folder / "c").write_text("c")
    with pytest.raises(ContentMismatch, match="also holds c"):
        check_folder(folder, files)
    with pytest.raises(ContentMismatch, match="not a folder"):
        check_folder(folder / "a", files)


def test_dsse_encodes_as_its_specification_shows() -> None:
    """The example of protocol.md."""
    assert pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


def test_the_payload_is_written_as_cosign_writes_it() -> None:
    """Copied from what `cosign sign` 2.5.0 pushed for an image of this name and digest."""
    digest = f"sha256:{'ab' * 32}"
    expected = (
        '{"critical":{"identity":{"docker-reference":"127.0.0.1:5000/a/b"},"image":{"docker-manifest-digest":"'
        + digest
        + '"},"type":"cosign container image signature"},"optional":null}'
    ).encode()
    assert payload(Claim("127.0.0.1:5000/a/b", digest, {})) == expected
    assert parse_payload(expected) == Claim("127.0.0.1:5000/a/b", digest, {})


def test_the_subject_of_the_content_is_the_hash_of_its_hashes() -> None:
    """sha256 over the two digests in the order of the paths' parts: `a/z` before `a-b`, as model_signing sorts paths."""
    files = [FileDigest("a-b", "11" * 32), FileDigest("a/z", "22" * 32)]
    claim = content_statement("m", files)
    assert claim.subjects == (hashlib.sha256(bytes.fromhex("22" * 32 + "11" * 32)).hexdigest(),)


def test_predicates_hold_what_their_specifications_require() -> None:
    made = PREDICATES[PROVENANCE]
    assert made["buildDefinition"]["resolvedDependencies"] == [
        {"name": "dataset", "digest": {"sha256": "a" * 64}},
        {"name": "code", "digest": {"gitCommit": "c" * 40}, "uri": "git+https://e.x/r"},
    ]
    assert made["runDetails"]["builder"]["id"] == "https://example.com/liftlock"
    assert PREDICATES[VERDICT] == {
        "result": "PASSED",
        "configuration": [{"name": "eval report", "digest": {"sha256": "b" * 64}}],
        "passedTests": ["exact_match not worse"],
        "failedTests": [],
    }
    with pytest.raises(PredicateInvalid, match="no digest"):
        provenance_predicate(Provenance("https://x", "1", "i", (Material("dataset", "sha256", ""),), {}))
    with pytest.raises(PredicateInvalid, match=r"runDetails\.builder\.id"):
        provenance_predicate(Provenance("", "1", "i", (), {}))


@pytest.mark.parametrize("predicate", [{}, {"result": "PASS", "configuration": []}, {"result": "PASSED"}])
def test_a_verdict_of_another_form_is_not_signed(signed_layout: SignedLayout, predicate: dict[str, object]) -> None:
    with signed_layout.open() as store, pytest.raises(PredicateInvalid):
        sign(store, signed_layout.signed.digest, signed_layout.key, IDENTITY, predicates={VERDICT: predicate})


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"\xff", b'{"mediaType": 1}', b"[" * 100_000])
def test_what_is_no_bundle_is_refused(data: bytes) -> None:
    with pytest.raises(EnvelopeInvalid):
        parse_bundle(data)
    with pytest.raises(EnvelopeInvalid):
        parse_statement(data)


def test_the_bill_names_the_base_the_dataset_and_every_file() -> None:
    annotations = {
        "dev.liftlock.base-model": "org/base",
        "dev.liftlock.base-sha256": "c" * 64,
        "dev.liftlock.dataset-sha256": "d" * 64,
        "org.opencontainers.image.licenses": "apache-2.0",
    }
    bill = sbom("r/m", f"sha256:{'a' * 64}", annotations, [FileDigest("z", "1" * 64), FileDigest("b", "2" * 64)])
    assert [part["bom-ref"] for part in bill["components"]] == ["base", "dataset", "file:b", "file:z"]
    assert bill["metadata"]["component"]["licenses"] == [{"license": {"name": "apache-2.0"}}]
    assert bill == sbom(
        "r/m", f"sha256:{'a' * 64}", annotations, [FileDigest("b", "2" * 64), FileDigest("z", "1" * 64)]
    )
