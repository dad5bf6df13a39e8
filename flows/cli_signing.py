"""`liftlock keys init`, `liftlock modelcar sign` and `liftlock modelcar verify`. They need no other part of Liftlock to run.

A passphrase comes from a file or from an environment variable that the command line names, never from an argument, and
is never printed. Exit code 3: the image is not what the key signed.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from flows.cli_modelcar import AsJson, AuthFile, CaFile, Image, PlainHttp, access_of, modelcar

if TYPE_CHECKING:
    from serving.modelcar.keys import PrivateKey, PublicKey

errors = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
keys = typer.Typer(help="Key pairs that sign images.", no_args_is_help=True)

PassphraseFile = Annotated[
    Path | None, typer.Option("--passphrase-file", help="File that holds the passphrase; a line end is cut off.")
]
PassphraseEnv = Annotated[
    str | None, typer.Option("--passphrase-env", help="Environment variable that holds it, e.g. COSIGN_PASSWORD.")
]


@keys.command("init")
def keys_init(
    prefix: Annotated[Path, typer.Option("--prefix", help="Writes PREFIX.key and PREFIX.pub.")] = Path("liftlock"),
    passphrase_file: PassphraseFile = None,
    passphrase_env: PassphraseEnv = None,
    no_passphrase: Annotated[bool, typer.Option("--no-passphrase", help="Protected by its file mode alone.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make an ECDSA P-256 key pair in cosign's format. Existing files are never overwritten.

    Example: liftlock keys init --prefix ~/keys/models --passphrase-env COSIGN_PASSWORD
    """
    from serving.modelcar.keys import new_key, write_key_pair

    if not (passphrase_file or passphrase_env or no_passphrase):
        raise typer.BadParameter("give --passphrase-file or --passphrase-env, or --no-passphrase for a key without one")
    key = new_key()
    private, public = write_key_pair(key, prefix.expanduser(), _passphrase(passphrase_file, passphrase_env))
    document = {"private": str(private), "public": str(public), "fingerprint": key.public.fingerprint}
    if as_json:
        typer.echo(json.dumps(document, indent=2))
        return
    typer.echo(f"{private}  keep it secret, and keep a copy\n{public}  give it to those who verify")
    typer.echo(f"fingerprint {key.public.fingerprint}")


@modelcar.command()
def sign(
    image: Image,
    key: Annotated[
        Path | None, typer.Option("--key", help="Private key; the local key, made at first use, where not given.")
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
    from serving.modelcar.sign import sign as sign_image

    reference = parse_reference(image)
    files = {PROVENANCE: provenance, VERDICT: verdict}
    predicates = {kind: _predicate(path) for kind, path in files.items() if path}
    signer = _private_key(key, _passphrase(passphrase_file, passphrase_env))
    name = identity or (Path(reference.folder).name if reference.is_layout else reference.name)
    with open_store(reference, access_of(auth_file, ca_file, plain_http)) as store:
        digest = store.get_manifest(reference.wanted).digest
        if not reference.digest:
            errors.print(f"{reference} is {digest} now; that digest is signed")
        signed = sign_image(store, digest, signer, name, predicates=predicates, fresh=fresh)
    document = {"reference": reference.pinned(digest), "identity": name, "key": signer.public.fingerprint} | asdict(
        signed
    )
    _say_signed(document, as_json)


@modelcar.command()
def verify(
    image: Image,
    key: Annotated[Path | None, typer.Option("--key", help="Public key; the local one where not given.")] = None,
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
    from serving.modelcar.verify import verify as verify_image

    reference, public = parse_reference(image), _public_key(key)
    required = () if signature_only else (*ALWAYS_SIGNED, *(_predicate_type(name) for name in require or ()))
    recorded = _recorded(ledger) if ledger else None
    with open_store(reference, access_of(auth_file, ca_file, plain_http)) as store:
        verified = verify_image(reference, public, store, required=required, recorded=recorded)
    if folder:
        check_folder(folder, verified.files)
    _say_verified(asdict(verified) | {"folder": str(folder) if folder else None}, as_json)


def _say_signed(document: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(document, indent=2))
        return
    for kind, digest in document["statements"]:
        typer.echo(f"  {digest[:19]}…  {kind}")
    typer.echo(f"{document['reference']}  signed as {document['identity']} by the key {document['key'][:16]}…")


def _say_verified(document: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(document, indent=2))
        return
    for kind, digest in document["statements"]:
        typer.echo(f"  {digest[:19]}…  {kind}")
    typer.echo(f"  {len(document['files'])} files signed; {document['bytes_read']:,} bytes of layers read and right")
    if document["verdict"]:
        typer.echo(f"  the gate's verdict: {document['verdict']}")
    typer.echo(
        f"{document['reference']}  verified: signed as {document['identity']} by the key {document['key'][:16]}…"
    )


def _passphrase(file: Path | None, variable: str | None) -> bytes:
    """Empty where neither is given."""
    if file and variable:
        raise typer.BadParameter("give --passphrase-file or --passphrase-env, not both")
    if variable:
        if variable not in os.environ:
            raise typer.BadParameter(f"the environment variable {variable} is not set; set it to the passphrase")
        return os.environ[variable].encode()
    if file is None:
        return b""
    try:
        return file.expanduser().read_bytes().removesuffix(b"\n").removesuffix(b"\r")
    except OSError as error:
        raise typer.BadParameter(f"the passphrase file {file} cannot be read ({error.strerror})") from error


def _private_key(path: Path | None, passphrase: bytes) -> PrivateKey:
    from serving.modelcar.keys import ensure_key_pair, load_private_key

    return load_private_key(path.expanduser(), passphrase) if path else ensure_key_pair(_local_key())


def _public_key(path: Path | None) -> PublicKey:
    from serving.modelcar.keys import load_public_key

    return load_public_key(path.expanduser() if path else _local_key().with_suffix(".pub"))


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
