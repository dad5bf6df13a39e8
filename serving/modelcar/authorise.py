"""Answers a registry's 401: basic credentials, or a bearer token from the server that the challenge names.

The token protocol is the distribution project's ("Token Authentication Specification" and its OAuth2 variant). Tokens
are kept by what they are for, and asked for again when the registry no longer takes them.
"""

import http.client
import json
from collections.abc import Mapping
from urllib.parse import quote_plus, urlencode, urlsplit

from serving.modelcar.credentials import Challenge, Credentials, parse_challenge
from serving.modelcar.document import RegistryFailed
from serving.modelcar.transport import Answer, Body, Transport

_CLIENT = "liftlock"


class Authoriser:
    """Thread-safe: two threads may ask for the same token, and either will do."""

    def __init__(self, transport: Transport, credentials: Credentials | None) -> None:
        self._transport = transport
        self._credentials = credentials
        self._headers: dict[str, str] = {}

    def headers(self, purpose: str) -> dict[str, str]:
        """What to send along; nothing before the first challenge."""
        value = self._headers.get(purpose)
        return {"Authorization": value} if value else {}

    def accept(self, purpose: str, scopes: tuple[str, ...], answer: Answer, sent: Mapping[str, str]) -> bool:
        """Learns from a 401 answer what to send for this purpose; False where there is nothing better to offer.

        `sent` are the headers of the request that got the answer: another thread may have learned since.
        Raises OSError, http.client.HTTPException, RegistryFailed where the token server refuses.
        """
        before = sent.get("Authorization")
        if self._headers.get(purpose) not in (None, before):
            return True
        challenge = parse_challenge(answer.headers.get("www-authenticate", ""))
        if challenge.scheme == "basic" and self._credentials is not None:
            self._headers[purpose] = self._credentials.basic
            return before != self._credentials.basic
        if challenge.scheme == "bearer" and challenge.parameters.get("realm"):
            self._headers[purpose] = f"Bearer {self._token(challenge, scopes, answer.url)}"
            return True
        return False

    def _token(self, challenge: Challenge, scopes: tuple[str, ...], registry: str) -> str:
        realm = challenge.parameters["realm"]
        if urlsplit(realm).scheme != "https" and urlsplit(registry).scheme == "https":
            raise RegistryFailed(f"{registry} sends us to {realm} for a token; https is required there; do not use it")
        wanted = tuple(dict.fromkeys((*challenge.parameters.get("scope", "").split(), *scopes)))
        answer = self._ask(realm, challenge.parameters.get("service", ""), wanted)
        if answer.status >= 500 or answer.status == 429:
            raise http.client.HTTPException(f"the token server {realm} answered {answer.status}")
        if answer.status != 200:
            raise RegistryFailed(
                f"the token server {realm} answered {answer.status}; give credentials that it takes (--auth-file)"
            )
        return _token_in(answer, realm)

    def _ask(self, realm: str, service: str, scopes: tuple[str, ...]) -> Answer:
        if self._credentials and self._credentials.identity_token:
            form = {
                "grant_type": "refresh_token",
                "service": service,
                "client_id": _CLIENT,
                "scope": " ".join(scopes),
                "refresh_token": self._credentials.identity_token,
            }
            data = urlencode(form).encode()
            kind = {"Content-Type": "application/x-www-form-urlencoded"}
            return self._transport.send("POST", realm, kind, Body(len(data), lambda: iter((data,))))
        headers: Mapping[str, str] = {"Authorization": self._credentials.basic} if self._credentials else {}
        query = [("service", service)] if service else []
        query += [("scope", scope) for scope in scopes]
        encoded = "&".join(f"{name}={quote_plus(value, safe=':,/')}" for name, value in query)
        return self._transport.send("GET", f"{realm}{'&' if '?' in realm else '?'}{encoded}", headers)


def _token_in(answer: Answer, realm: str) -> str:
    try:
        document = json.loads(answer.body)
        token = document.get("token") or document.get("access_token")
    except (ValueError, AttributeError) as error:
        raise RegistryFailed(f"the token server {realm} sent no JSON object ({error}); ask who runs it") from error
    if not isinstance(token, str) or not token.isascii() or not token.isprintable():
        raise RegistryFailed(f"the token server {realm} sent no token; ask who runs it")
    return token
