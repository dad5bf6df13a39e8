"""Before a version gets traffic: its modelcar is verified by the trusted key, and only then placed where the engine finds it.

Refused: an unsigned image, a foreign or replaced signature, a tag that names another digest, evidence in the ledger that does
not name this digest, damaged bytes, and an engine whose base model is not the one in the image.
"""

from __future__ import annotations

from pathlib import Path

from serving.modelcar import Modelcar, Reference, open_store, parse_reference, place_adapter
from serving.modelcar.content import ContentMismatch, FileDigest, hash_files
from serving.modelcar.keys import PublicKey
from serving.modelcar.source import ADAPTERS_FOLDER
from serving.modelcar.verify import RELEASE, Verified, verify
from tasks.artifacts import ModelVersion
from tasks.build_and_push import layout_folder, registry_access, registry_reference
from tasks.ledger import moves
from tasks.settings import get_settings
from tasks.signing import verification_key
from tasks.stack.addresses import addresses


def place_verified(version: ModelVersion, modelcar: Modelcar, folder: Path, base: Path) -> Verified:
    """The adapter's files in `folder`, out of the verified image, for an engine that serves `base`.

    Raises VerificationFailed, ContentMismatch, KeyInvalid, ImageMissing, RegistryFailed, and what place_adapter raises.
    """
    settings = get_settings()
    recorded = recorded_digests(addresses(settings).dsn("liftlock"), version.name)
    key = verification_key(settings)
    tag = f"{version.name}-{version.version}"
    verified = check(parse_reference(f"oci:{layout_folder()}:{tag}@{modelcar.digest}"), key, modelcar, recorded)
    pushed = registry_reference(version.name, version.version, modelcar.digest)
    if pushed is not None:
        check(pushed, key, modelcar, recorded)
    if settings.vllm_url is None:
        check_base(base, verified.files)
    place_adapter(layout_folder(), modelcar.digest, version.name, folder)
    return verified


def verify_pushed(version: ModelVersion, modelcar: Modelcar) -> None:
    """What a cluster pulls is signed by the trusted key and named by the ledger. Raises VerificationFailed, KeyInvalid,
    ImageMissing, RegistryFailed.
    """
    settings = get_settings()
    pushed = registry_reference(version.name, version.version, modelcar.digest)
    if pushed is not None:
        recorded = recorded_digests(addresses(settings).dsn("liftlock"), version.name)
        check(pushed, verification_key(settings), modelcar, recorded)


def check(reference: Reference, key: PublicKey, modelcar: Modelcar, recorded: tuple[str, ...]) -> Verified:
    """Every byte in the layout folder, which is what is placed; in a registry what is signed, not the layers again."""
    payload, layers = modelcar.signature or None, reference.is_layout
    with open_store(reference, registry_access()) as store:
        return verify(reference, key, store, required=RELEASE, recorded=recorded, payload=payload, layers=layers)


def recorded_digests(dsn: str, model: str) -> tuple[str, ...]:
    """The digests that the evidence in the ledger names as this model's images."""
    return tuple(
        move.evidence["modelcar"].rpartition("@")[2] for move in moves(dsn, model) if "modelcar" in move.evidence
    )


def check_base(engine_model: Path, signed: tuple[FileDigest, ...]) -> None:
    """The engine serves one base for all releases, from a folder of its own. Raises ContentMismatch where a file of it is
    not what the image holds; files that the image left out are no weights.
    """
    wanted = {file.name: file.sha256 for file in signed if not file.name.startswith(f"{ADAPTERS_FOLDER}/")}
    missing = [name for name in wanted if not (engine_model / name).is_file()]
    found = {file.name: file.sha256 for file in hash_files({n: engine_model / n for n in wanted if n not in missing})}
    wrong = [*missing, *(name for name in found if found[name] != wanted[name])]
    if wrong:
        raise ContentMismatch(
            f"the engine's base model {engine_model} and the signed modelcar differ in {', '.join(sorted(wrong))}; required: "
            "the same bytes. Run `make setup`, or restart the engine on the base of this release"
        )
