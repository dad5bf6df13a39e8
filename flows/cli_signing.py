"""`liftlock modelcar sign` and `liftlock modelcar verify`. They need no other part of Liftlock to run; keys are in cli_keys.py.

Exit code 3: the image is not what the key signed.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from flows.cli_keys import PassphraseEnv, PassphraseFile, passphrase
from flows.cli_modelcar import AsJson, AuthFile, CaFile, Image, PlainHttp, access_of
from flows.signing_ways import by_identity, by_key, judge_identity, judge_key

errors = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
TrustConfig = Annotated[
    Path | None,
    typer.Option("--trust-config", help="Client trust config of your own Sigstore; the public one's where not given."),
]


def sign(
    image: Image,
    key: Annotated[
        str | None,
        typer.Option(
            "--key", help="Private key: a file, pkcs11:… or awskms://…; a local one, made at first use, if not given."
        ),
    ] = None,
    passphrase_file: PassphraseFile = None,
    passphrase_env: PassphraseEnv = None,
    identity: Annotated[
        str | None, typer.Option("--identity", help="Name to sign; HOST/REPOSITORY where not given.")
    ] = None,
    provenance: Annotated[
        Path | None, typer.Option("--provenance", help="JSON file: a SLSA v1 provenance predicate.")
    ] = None,
    verdict: Annotated[
        Path | None, typer.Option("--verdict", help="JSON file: an in-toto test-result predicate.")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Replace what this key attested before.")] = False,
    keyless: Annotated[
        bool, typer.Option("--keyless", help="Sign as an OIDC identity: the CI job's own, or of a token in a file.")
    ] = False,
    token_file: Annotated[
        Path | None, typer.Option("--identity-token-file", help="With --keyless: file that holds the token.")
    ] = None,
    trust_config: TrustConfig = None,
    auth_file: AuthFile = None,
    ca_file: CaFile = None,
    plain_http: PlainHttp = False,
    as_json: AsJson = False,
) -> None:
    """Sign an image by digest, with its content and bill of materials, where cosign and Kyverno find it.

    Example: liftlock modelcar sign registry.example.com/models/router:v1 --key models.key --passphrase-env COSIGN_PASSWORD
    """
    from serving.modelcar import open_store, parse_reference
    from serving.modelcar.attest import PROVENANCE, VERDICT

    if keyless and key:
        raise typer.BadParameter("give --key or --keyless, not both")
    reference = parse_reference(image)
    files = {PROVENANCE: provenance, VERDICT: verdict}
    predicates = {kind: _predicate(path) for kind, path in files.items() if path}
    name = identity or (Path(reference.folder).name if reference.is_layout else reference.name)
    secret = passphrase(passphrase_file, passphrase_env)
    way = by_identity(token_file, trust_config) if keyless else by_key(key, secret, _local_key(), fresh)
    with open_store(reference, access_of(auth_file, ca_file, plain_http)) as store:
        digest = store.get_manifest(reference.wanted).digest
        if not reference.digest:
            errors.print(f"{reference} is {digest} now; that digest is signed")
        who, signed = way(store, digest, name, predicates)
    document = {"reference": reference.pinned(digest), "identity": name, "key": who} | asdict(signed)
    _say_signed(document, as_json)


def verify(
    image: Image,
    key: Annotated[Path | None, typer.Option("--key", help="Public key; the local one where not given.")] = None,
    certificate_identity: Annotated[
        str | None,
        typer.Option(
            "--certificate-identity", help="Instead of a key: who signed, e.g. a workflow's URL or an address."
        ),
    ] = None,
    certificate_issuer: Annotated[
        str | None, typer.Option("--certificate-oidc-issuer", help="Who vouches for that identity.")
    ] = None,
    trust_config: TrustConfig = None,
    require: Annotated[
        list[str] | None,
        typer.Option("--require", help="Also needed: provenance, or verdict (which must be PASSED); repeatable."),
    ] = None,
    signature_only: Annotated[
        bool, typer.Option("--signature-only", help="Accept an image that cosign signed, without attestations.")
    ] = False,
    folder: Annotated[
        Path | None, typer.Option("--folder", help="Also check the folder that the model was pulled into.")
    ] = None,
    ledger: Annotated[
        str | None, typer.Option("--ledger", help="Also ask the ledger whether a move of this model names the image.")
    ] = None,
    auth_file: AuthFile = None,
    ca_file: CaFile = None,
    plain_http: PlainHttp = False,
    as_json: AsJson = False,
) -> None:
    """Check an image's signature, attestations and every byte of its layers. Exit 3 where something is wrong.

    Example: liftlock modelcar verify registry.example.com/models/router:v1 --key models.pub --require verdict
    """
    from serving.modelcar import open_store, parse_reference
    from serving.modelcar.content import check_folder
    from serving.modelcar.verify import ALWAYS_SIGNED

    reference = parse_reference(image)
    if certificate_identity or certificate_issuer:
        judge = judge_identity(certificate_identity, certificate_issuer, key, trust_config)
    else:
        judge = judge_key(key.expanduser() if key else _local_key().with_suffix(".pub"))
    required = () if signature_only else (*ALWAYS_SIGNED, *(_predicate_type(name) for name in require or ()))
    recorded = _recorded(ledger) if ledger else None
    with open_store(reference, access_of(auth_file, ca_file, plain_http)) as store:
        verified = judge(reference, store, required, recorded)
    if folder:
        check_folder(folder, verified.files)
    _say_verified(asdict(verified) | {"folder": str(folder) if folder else None}, as_json)


def register(group: typer.Typer) -> None:
    """Adds the commands to the group `liftlock modelcar`."""
    group.command()(sign)
    group.command()(verify)


def _say_signed(document: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(document, indent=2))
        return
    for kind, digest in document["statements"]:
        typer.echo(f"  {digest[:19]}…  {kind}")
    typer.echo(f"{document['reference']}  signed as {document['identity']} by {_who(document)}")


def _say_verified(document: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(document, indent=2))
        return
    for kind, digest in document["statements"]:
        typer.echo(f"  {digest[:19]}…  {kind}")
    typer.echo(f"  {len(document['files'])} files signed; {document['bytes_read']:,} bytes of layers read and right")
    typer.echo(f"  payload {document['payload_digest']}")
    if document["verdict"]:
        typer.echo(f"  the gate's verdict: {document['verdict']}")
    typer.echo(f"{document['reference']}  verified: signed as {document['identity']} by {_who(document)}")


def _who(document: dict[str, Any]) -> str:
    """A key by the beginning of its fingerprint, an identity by its words."""
    key = str(document["key"])
    return key if " " in key else f"the key {key[:16]}…"


def _local_key() -> Path:
    from tasks.settings import get_settings

    return get_settings().state / "keys" / "liftlock"


def _predicate_type(name: str) -> str:
    from serving.modelcar.attest import PROVENANCE, VERDICT

    kinds = {"provenance": PROVENANCE, "verdict": VERDICT}
    if name not in kinds:
        raise typer.BadParameter(f"{name!r} is no attestation to require; use {' or '.join(kinds)}")
    return kinds[name]


def _predicate(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"{path} is no JSON file with a predicate ({error})") from error
    if not isinstance(value, dict):
        raise typer.BadParameter(f"{path} holds no JSON object; a predicate is one")
    return value


def _recorded(model: str) -> tuple[str, ...]:
    """The digests that the evidence in the ledger names as this model's images."""
    from tasks.settings import get_settings
    from tasks.stack.addresses import addresses
    from tasks.verify_modelcar import recorded_digests

    return recorded_digests(addresses(get_settings()).dsn("liftlock"), model)
