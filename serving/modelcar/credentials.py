"""Who we are to a registry: the Docker credential file, and what a 401 answer asks for.

Reads `auths`, `credHelpers` and `credsStore` of Docker's config.json. It never writes the file, and keeps no secret
longer than the process lives.
"""

import base64
import binascii
import json
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HELPER_SECONDS = 30
_NONE_FOUND = "credentials not found"
_DOCKER_HUB = "https://index.docker.io/v1/"
_PARAMETER = re.compile(r'([A-Za-z_]+)\s*=\s*(?:"([^"]*)"|([^\s,]+))')
_HELPER = re.compile(r"[A-Za-z0-9._-]+")


class CredentialsInvalid(ValueError):
    """The credential file, its helper or the file of authorities gives nothing usable; mend it, or re-create it with a login."""


@dataclass(frozen=True)
class Credentials:
    """A user with a password, or an identity (refresh) token; secrets stay out of `repr`."""

    username: str
    password: str = field(repr=False)
    identity_token: str = field(default="", repr=False)

    @property
    def basic(self) -> str:
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


@dataclass(frozen=True)
class Challenge:
    """A `WWW-Authenticate` header: `scheme` is in lower case."""

    scheme: str
    parameters: Mapping[str, str]


def parse_challenge(header: str) -> Challenge:
    """RFC 9110, section 11.6.1, for one challenge, as registries send it."""
    scheme, _, rest = header.strip().partition(" ")
    found = {name.lower(): quoted or plain for name, quoted, plain in _PARAMETER.findall(rest)}
    return Challenge(scheme.lower(), found)


def read_credentials(auth_file: Path | None, host: str) -> Credentials | None:
    """What the file says for the registry, or None. Raises CredentialsInvalid, also where the named file is absent."""
    if auth_file is None:
        return None
    document = _document(auth_file)
    names: tuple[str, ...] = (host, f"https://{host}", f"https://{host}/v1/", f"https://{host}/v2/", f"http://{host}")
    names = (*names, _DOCKER_HUB) if host in ("docker.io", "index.docker.io", "registry-1.docker.io") else names
    helpers, entries = document.get("credHelpers") or {}, document.get("auths") or {}
    for name in names:
        if name in helpers:
            return _from_helper(helpers[name], name)
        if isinstance(entries.get(name), dict) and entries[name]:
            return _from_entry(entries[name], auth_file, name)
    store = document.get("credsStore")
    return _from_helper(store, host) if store else None


def _document(auth_file: Path) -> dict[str, Any]:
    try:
        document = json.loads(auth_file.read_bytes())
    except OSError as error:
        raise CredentialsInvalid(
            f"the credential file {auth_file} cannot be read ({error.strerror}); name one that exists"
        ) from error
    except ValueError as error:
        raise CredentialsInvalid(f"the credential file {auth_file} is not JSON ({error}); log in again") from error
    if not isinstance(document, dict):
        raise CredentialsInvalid(f"the credential file {auth_file} is not a JSON object; log in again")
    return document


def _from_entry(entry: Mapping[str, Any], auth_file: Path, name: str) -> Credentials:
    token = str(entry.get("identitytoken", ""))
    if "username" in entry and "password" in entry:
        return Credentials(str(entry["username"]), str(entry["password"]), token)
    try:
        user, colon, password = base64.b64decode(str(entry.get("auth", "")), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError) as error:
        raise CredentialsInvalid(f"the entry {name} of {auth_file} is not base64 of user:password; log in again") from (
            error
        )
    if not colon and not token:
        raise CredentialsInvalid(f"the entry {name} of {auth_file} holds no user and password; log in again")
    return Credentials(user, password.rstrip("\0"), token)


def _from_helper(helper: object, name: str) -> Credentials | None:
    """Docker's credential helper protocol: the registry's name on standard input, JSON on standard output."""
    if not isinstance(helper, str) or not _HELPER.fullmatch(helper):
        raise CredentialsInvalid(f"{helper!r} is no name of a credential helper; mend the credential file")
    program = f"docker-credential-{helper}"
    try:
        done = subprocess.run(
            [program, "get"], input=name, capture_output=True, text=True, timeout=HELPER_SECONDS, check=False
        )
        answer = json.loads(done.stdout) if done.returncode == 0 else None
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise CredentialsInvalid(f"{program} gave no credentials for {name} ({error}); mend the helper") from error
    if answer is None:
        said = done.stdout.strip()
        if said and _NONE_FOUND not in said.lower():
            raise CredentialsInvalid(f"{program} gave no credentials for {name}: {said:.300}")
        return None  # the helper's way to say that it knows none
    user, secret = str(answer.get("Username", "")), str(answer.get("Secret", ""))
    return Credentials("", "", secret) if user == "<token>" else Credentials(user, secret)
