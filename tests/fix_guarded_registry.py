"""docker-registry behind TLS, with a user list or with bearer tokens, each on its own port and storage.

Certificates are made by the cryptography package. The token server is a small real one: it takes basic credentials and
signs the JSON web tokens that docker-registry checks (distribution, "Token Authentication Implementation").
"""

import base64
import datetime
import ipaddress
import json
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import NameOID

from tests.fix_waiting import PATIENCE_SECONDS

USER, PASSWORD = "robot", "s3cret:with colon"
# bcrypt of PASSWORD, the only kind that docker-registry takes: what `htpasswd -B` writes.
HASHED = "$2y$05$abcdefghijklmnopqrstuuOb/B27OpVc3Bt3QXIepIr2DUn/DCZNi"


@dataclass
class Certificate:
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate
    key_file: Path
    certificate_file: Path


def make_certificate(folder: Path) -> Certificate:
    """Self-signed, for 127.0.0.1 and localhost, an authority of its own."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test registry")])
    now = datetime.datetime.now(datetime.UTC)
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    made = Certificate(key, certificate, folder / "key.pem", folder / "ca.pem")
    made.certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.TraditionalOpenSSL
    made.key_file.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    return made


@dataclass
class TokenServer:
    """`asked` are the scopes of each request; `seconds` is how long a token is good for."""

    certificate: Certificate
    realm: str = ""
    asked: list[tuple[str, ...]] = field(default_factory=list)
    seconds: int = 300
    refuses: bool = False

    def token(self, scopes: tuple[str, ...]) -> str:
        now = int(time.time())
        access = [_access(scope) for scope in scopes]
        claims = {"iss": "tests", "aud": "registry", "sub": USER, "access": access}
        claims |= {"nbf": now - 5, "iat": now, "exp": now + self.seconds, "jti": "1"}
        chain = [base64.b64encode(self.certificate.certificate.public_bytes(serialization.Encoding.DER)).decode()]
        signed = f"{_part({'typ': 'JWT', 'alg': 'ES256', 'x5c': chain})}.{_part(claims)}"
        r, s = decode_dss_signature(self.certificate.key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{_text(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def _access(scope: str) -> dict[str, object]:
    kind, name, actions = scope.split(":")
    return {"type": kind, "name": name, "actions": actions.split(",")}


def _part(value: object) -> str:
    return _text(json.dumps(value).encode())


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class TokenHandler(BaseHTTPRequestHandler):
    server_state: TokenServer

    def do_GET(self) -> None:
        wanted = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        scopes = tuple(parse_qs(urlsplit(self.path).query).get("scope", ()))
        self.server_state.asked.append(scopes)
        allowed = self.headers.get("Authorization") == wanted and not self.server_state.refuses
        body = json.dumps({"token": self.server_state.token(scopes)} if allowed else {"errors": []}).encode()
        self.send_response(200 if allowed else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="session")
def basic_registry(tmp_path_factory: pytest.TempPathFactory, certificate: Certificate) -> Iterator[str]:
    """`127.0.0.1:PORT` of a registry with TLS that USER with PASSWORD may use."""
    folder = tmp_path_factory.mktemp("basic")
    users = folder / "htpasswd"
    users.write_text(f"{USER}:{HASHED}\n")
    with running(folder, f"auth: {{htpasswd: {{realm: tests, path: {users}}}}}", certificate) as address:
        yield address


@pytest.fixture(scope="session")
def token_registry(
    tmp_path_factory: pytest.TempPathFactory, certificate: Certificate
) -> Iterator[tuple[str, TokenServer]]:
    """The same with bearer tokens, and the server that gives them."""
    state = TokenServer(certificate)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (TokenHandler,), {"server_state": state}))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate_file, certificate.key_file)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    state.realm = f"https://127.0.0.1:{server.server_port}/token"
    guard = (
        f"{{realm: {state.realm}, service: registry, issuer: tests, rootcertbundle: {certificate.certificate_file}}}"
    )
    try:
        with running(tmp_path_factory.mktemp("token"), f"auth: {{token: {guard}}}", certificate) as address:
            yield address, state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def running(folder: Path, auth: str, certificate: Certificate) -> Iterator[str]:
    if (program := shutil.which("docker-registry")) is None:
        pytest.skip("docker-registry is not on PATH: apt-get install docker-registry")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    tls = f"{{certificate: {certificate.certificate_file}, key: {certificate.key_file}}}"
    (folder / "config.yml").write_text(
        f"version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n{auth}\n"
        f"storage: {{filesystem: {{rootdirectory: {folder / 'storage'}}}}}\n"
        f"http: {{addr: '{address}', secret: only-for-tests, tls: {tls}}}\n"
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, "serve", str(folder / "config.yml")], stdout=log, stderr=log)
    try:
        _await(process, address, folder / "log")
        yield address
    finally:
        process.terminate()
        process.wait()


def _await(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    host, port = address.split(":")
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        with socket.socket() as probe:
            if probe.connect_ex((host, int(port))) == 0:
                return
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"docker-registry did not start: {log.read_text()}")
        time.sleep(0.05)
