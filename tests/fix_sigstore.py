"""A stand-in for a Sigstore instance on loopback: certificate authority, certificate log and transparency log in one server.

The public Fulcio and Rekor cannot be asked by a test. This one speaks their HTTP interfaces, checks the identity token's
signature and expiry, and issues real certificates with a real certificate timestamp, log entries with inclusion proofs,
and checkpoints. The library sigstore and cosign judge them with the same code as the public instance's; only the keys differ.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

SECRET = "the token issuer's secret, 32 bytes"
ISSUER = "https://token.actions.githubusercontent.com"
WORKFLOW = "https://github.com/org/models/.github/workflows/release.yml@refs/heads/main"
ORIGIN = "rekor.local - 1"
SCT_LIST = x509.ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")
USAGES = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "crl_sign",
          "encipher_only", "decipher_only")  # fmt: skip
START = {"start": "2020-01-01T00:00:00Z"}


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def spki(key: ec.EllipticCurvePrivateKey) -> bytes:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.DER, form)


def key_id(key: ec.EllipticCurvePrivateKey) -> bytes:
    return hashlib.sha256(spki(key)).digest()


def signature(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    return key.sign(data, ec.ECDSA(hashes.SHA256()))


def identity_token(subject: str = "repo:org/models:ref:refs/heads/main", seconds: int = 600, **claims: str) -> str:
    """As the issuer gives it to a job; the workflow's address is a claim of its own, and becomes the certificate's name."""
    now = int(time.time())
    said = {
        "iss": ISSUER,
        "sub": subject,
        "aud": "sigstore",
        "iat": now - 1,
        "exp": now + seconds,
        "workflow": WORKFLOW,
    }
    return jwt.encode(said | claims, SECRET, "HS256")


class Authority:
    """Fulcio: certificates of ten minutes, each with a timestamp of the certificate log."""

    def __init__(self) -> None:
        self.key, self.log = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        name = x509.Name(
            [x509.NameAttribute(NameOID.COMMON_NAME, "stand-in"), x509.NameAttribute(NameOID.ORGANIZATION_NAME, "x")]
        )
        now = datetime.now(UTC)
        usage = dict.fromkeys(USAGES, False)
        self.usage = usage
        self.certificate = (
            x509.CertificateBuilder(name, name, self.key.public_key(), x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
            .add_extension(x509.KeyUsage(**usage, key_cert_sign=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
            .sign(self.key, hashes.SHA256())
        )  # fmt: skip

    def issue(self, request: x509.CertificateSigningRequest, subject: str, issuer: str) -> x509.Certificate:
        now = datetime.now(UTC)
        leaf = (
            x509.CertificateBuilder(self.certificate.subject, x509.Name([]), request.public_key(), x509.random_serial_number())
            .not_valid_before(now - timedelta(seconds=5)).not_valid_after(now + timedelta(minutes=10))
            .add_extension(x509.KeyUsage(**self.usage | {"digital_signature": True}, key_cert_sign=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(request.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
            .add_extension(x509.SubjectAlternativeName([_name(subject)]), critical=True)
            .add_extension(_fulcio(1, issuer.encode()), critical=False)
            .add_extension(_fulcio(8, b"\x0c" + bytes([len(issuer)]) + issuer.encode()), critical=False)
        )  # fmt: skip
        precertificate = leaf.sign(self.key, hashes.SHA256())
        listed = x509.UnrecognizedExtension(SCT_LIST, self._timestamps(precertificate.tbs_certificate_bytes))
        return leaf.add_extension(listed, critical=False).sign(self.key, hashes.SHA256())

    def _timestamps(self, tbs: bytes) -> bytes:
        """RFC 6962, sections 3.2 and 3.3, as a DER octet string."""
        when = int(time.time() * 1000)
        entry = key_id(self.key) + len(tbs).to_bytes(3, "big") + tbs
        signed = signature(self.log, struct.pack("!BBQH", 0, 0, when, 1) + entry + b"\0\0")
        timestamp = struct.pack("!B32sQHBBH", 0, key_id(self.log), when, 0, 4, 3, len(signed)) + signed
        listed = struct.pack("!HH", len(timestamp) + 2, len(timestamp)) + timestamp
        return b"\x04" + (bytes([len(listed)]) if len(listed) < 128 else b"\x81" + bytes([len(listed)])) + listed


def _name(subject: str) -> x509.GeneralName:
    return x509.UniformResourceIdentifier(subject) if "://" in subject else x509.RFC822Name(subject)


def _fulcio(number: int, value: bytes) -> x509.UnrecognizedExtension:
    return x509.UnrecognizedExtension(x509.ObjectIdentifier(f"1.3.6.1.4.1.57264.1.{number}"), value)


class Log:
    """Rekor: a Merkle tree (RFC 6962) that grows by an entry a call."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.leaves: list[bytes] = []

    def add(self, proposed: dict[str, Any]) -> dict[str, Any]:
        content = proposed["spec"]["proposedContent"]
        envelope = json.loads(content["envelope"])
        (verifier,) = content["verifiers"]
        body = {
            "apiVersion": "0.0.1",
            "kind": "dsse",
            "spec": {
                "envelopeHash": _hash(content["envelope"].encode()),
                "payloadHash": _hash(base64.b64decode(envelope["payload"])),
                "signatures": [{"signature": one["sig"], "verifier": verifier} for one in envelope["signatures"]],
            },
        }
        data = _canonical(body)
        self.leaves.append(hashlib.sha256(b"\0" + data).digest())
        index, root = len(self.leaves) - 1, _root(self.leaves)
        entry = {
            "body": b64(data),
            "integratedTime": int(time.time()),
            "logID": key_id(self.key).hex(),
            "logIndex": index,
        }
        head = f"{ORIGIN}\n{len(self.leaves)}\n{b64(root)}\n"
        note = f"{head}\n\u2014 rekor.local {b64(key_id(self.key)[:4] + signature(self.key, head.encode()))}\n"
        proof = {
            "checkpoint": note, "hashes": [one.hex() for one in _path(index, self.leaves)], "logIndex": index,
            "rootHash": root.hex(), "treeSize": len(self.leaves),
        }  # fmt: skip
        promise = b64(signature(self.key, _canonical(entry)))
        return {data.hex()[:80]: entry | {"verification": {"inclusionProof": proof, "signedEntryTimestamp": promise}}}


def _hash(data: bytes) -> dict[str, str]:
    return {"algorithm": "sha256", "value": hashlib.sha256(data).hexdigest()}


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _root(leaves: list[bytes]) -> bytes:
    if len(leaves) == 1:
        return leaves[0]
    half = 1 << (len(leaves) - 1).bit_length() - 1
    return hashlib.sha256(b"\1" + _root(leaves[:half]) + _root(leaves[half:])).digest()


def _path(index: int, leaves: list[bytes]) -> list[bytes]:
    if len(leaves) == 1:
        return []
    half = 1 << (len(leaves) - 1).bit_length() - 1
    if index < half:
        return [*_path(index, leaves[:half]), _root(leaves[half:])]
    return [*_path(index - half, leaves[half:]), _root(leaves[:half])]


class StandIn:
    """`config` is the client trust config that names it, `root` its trusted root alone, as cosign reads it."""

    def __init__(self, folder: Path) -> None:
        self.authority, self.log = Authority(), Log()
        self.down = False
        self._lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"stand_in": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        url = f"http://127.0.0.1:{self.server.server_port}"
        trusted = self._trusted_root(url)
        service = {"url": url, "majorApiVersion": 1, "validFor": START, "operator": "x"}
        signing = {
            "mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json",
            "caUrls": [service], "oidcUrls": [service], "rekorTlogUrls": [service], "tsaUrls": [],
            "rekorTlogConfig": {"selector": "ANY"}, "tsaConfig": {"selector": "ANY"},
        }  # fmt: skip
        kind = "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json"
        self.config, self.root = folder / "trust.json", folder / "trusted_root.json"
        self.config.write_text(json.dumps({"mediaType": kind, "trustedRoot": trusted, "signingConfig": signing}))
        self.root.write_text(json.dumps(trusted))

    def _trusted_root(self, url: str) -> dict[str, Any]:
        def log(key: ec.EllipticCurvePrivateKey) -> dict[str, Any]:
            public = {"rawBytes": b64(spki(key)), "keyDetails": "PKIX_ECDSA_P256_SHA_256", "validFor": START}
            return {
                "baseUrl": url,
                "hashAlgorithm": "SHA2_256",
                "publicKey": public,
                "logId": {"keyId": b64(key_id(key))},
            }

        authority = self.authority.certificate.public_bytes(serialization.Encoding.DER)
        chain = {"certificates": [{"rawBytes": b64(authority)}]}
        return {
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [log(self.log.key)], "ctlogs": [log(self.authority.log)], "timestampAuthorities": [],
            "certificateAuthorities": [
                {"subject": {"organization": "x", "commonName": "stand-in"}, "uri": url, "certChain": chain, "validFor": START}
            ],
        }  # fmt: skip

    def answer(self, path: str, token: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if self.down:
            return 503, {"message": "maintenance"}
        if path == "/api/v1/log/entries":
            with self._lock:
                return 201, self.log.add(body)
        try:
            claims = jwt.decode(token, SECRET, ["HS256"], audience="sigstore")
        except jwt.InvalidTokenError as error:
            return 401, {"message": str(error)}
        request = x509.load_pem_x509_csr(base64.b64decode(body["certificateSigningRequest"]))
        subject = claims.get("email") or claims["workflow"]
        leaf = self.authority.issue(request, subject, claims["iss"])
        pems = [one.public_bytes(serialization.Encoding.PEM).decode() for one in (leaf, self.authority.certificate)]
        return 200, {"signedCertificateEmbeddedSct": {"chain": {"certificates": pems}}}


class _Handler(BaseHTTPRequestHandler):
    stand_in: StandIn

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        status, said = self.stand_in.answer(self.path, token, body)
        data = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def sigstore(tmp_path: Path) -> Iterator[StandIn]:
    stand_in = StandIn(tmp_path)
    thread = threading.Thread(target=stand_in.server.serve_forever)
    thread.start()
    yield stand_in
    stand_in.server.shutdown()
    stand_in.server.server_close()
    thread.join()
