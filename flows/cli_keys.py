"""`liftlock keys`: makes the keys that sign images, in files, in tokens or in a key service, and shows their public halves.

A passphrase or PIN comes from a file or from an environment variable that the command line names, never from an
argument, and is never printed.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli_modelcar import AsJson

if TYPE_CHECKING:
    from serving.modelcar.keys import PublicKey

keys = typer.Typer(help="Key pairs that sign images.", no_args_is_help=True)

PassphraseFile = Annotated[
    Path | None,
    typer.Option("--passphrase-file", help="File that holds the passphrase, or a token's PIN; a line end is cut off."),
]
PassphraseEnv = Annotated[
    str | None, typer.Option("--passphrase-env", help="Environment variable that holds it, e.g. COSIGN_PASSWORD.")
]


@keys.command("init")
def keys_init(
    prefix: Annotated[Path, typer.Option("--prefix", help="Writes PREFIX.key and PREFIX.pub.")] = Path("liftlock"),
    address: Annotated[
        str | None,
        typer.Option("--key", help="Make it in a token (pkcs11:…) or AWS KMS (awskms:///alias/NAME): only PREFIX.pub."),
    ] = None,
    passphrase_file: PassphraseFile = None,
    passphrase_env: PassphraseEnv = None,
    no_passphrase: Annotated[bool, typer.Option("--no-passphrase", help="Protected by its file mode alone.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make an ECDSA P-256 key pair: in cosign's file format, or where it never leaves a token or a key service.

    Nothing is ever overwritten.

    Example: liftlock keys init --prefix ~/keys/models --passphrase-env COSIGN_PASSWORD
    """
    prefix = prefix.expanduser()
    if not prefix.name:
        raise typer.BadParameter(f"--prefix {str(prefix)!r} names no file; give one such as keys/models")
    if address is not None:
        private, public, made = address, *_at_address(address, prefix, passphrase(passphrase_file, passphrase_env))
    else:
        if not (passphrase_file or passphrase_env or no_passphrase):
            raise typer.BadParameter(
                "give --passphrase-file or --passphrase-env, or --no-passphrase for a key without one"
            )
        private, public, made = _in_files(prefix, passphrase(passphrase_file, passphrase_env))
    if as_json:
        document = {"private": private, "public": str(public), "fingerprint": made.fingerprint}
        typer.echo(json.dumps(document, indent=2))
        return
    typer.echo(f"{private}  {'name it to sign' if address else 'keep it secret, and keep a copy'}")
    typer.echo(f"{public}  give it to those who verify\nfingerprint {made.fingerprint}")


@keys.command("public")
def keys_public(
    key: Annotated[str, typer.Argument(help="A private key: a file, pkcs11:… or awskms://….")],
    passphrase_file: PassphraseFile = None,
    passphrase_env: PassphraseEnv = None,
) -> None:
    """Print the public half of a key as PEM, such as of one that somebody else made in a token.

    Example: liftlock keys public awskms:///alias/models > models.pub
    """
    from serving.modelcar.signer import open_signer

    typer.echo(open_signer(key, passphrase(passphrase_file, passphrase_env)).public.pem, nl=False)


def passphrase(file: Path | None, variable: str | None) -> bytes:
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


def _in_files(prefix: Path, secret: bytes) -> tuple[str, Path, PublicKey]:
    from serving.modelcar.keys import new_key, write_key_pair

    key = new_key()
    private, public = write_key_pair(key, prefix, secret)
    return str(private), public, key.public


def _at_address(address: str, prefix: Path, secret: bytes) -> tuple[Path, PublicKey]:
    """The file is looked for first: a key that nobody can verify would be left behind."""
    from serving.modelcar.keys import refuse_taken, write_public_key
    from serving.modelcar.signer import make_signer

    refuse_taken(prefix.with_name(f"{prefix.name}.pub"))
    made = make_signer(address, secret).public
    return write_public_key(made, prefix), made
