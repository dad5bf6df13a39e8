"""Keys that are in no file: a real PKCS#11 token (SoftHSM, from Debian), and a stand-in for AWS KMS on loopback.

The stand-in answers the five calls that are used, with real keys. boto3 checks each call against AWS's own description of
the service before it sends it. moto was no help: it hashes a digest once more, which AWS does not.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

PIN = "a PIN 4711"
MODULES = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
)


@dataclass(frozen=True)
class Token:
    """One initialised token. `config` is what SOFTHSM2_CONF has to name."""

    module: Path
    config: Path
    label: str = "liftlock"

    def address(self, key: str) -> str:
        return f"pkcs11:token={self.label};{key}?module-path={self.module}"


@pytest.fixture(scope="session")
def token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Token]:
    """Skips where SoftHSM is not installed. The module reads its environment when it is loaded, once a process."""
    module = next((Path(path) for path in MODULES if Path(path).exists()), None)
    if module is None or shutil.which("softhsm2-util") is None:
        pytest.skip("SoftHSM is not installed; Debian has it as softhsm2")
    folder = tmp_path_factory.mktemp("token")
    (folder / "tokens").mkdir()
    config = folder / "softhsm2.conf"
    config.write_text(f"directories.tokendir = {folder / 'tokens'}\nobjectstore.backend = file\nlog.level = ERROR\n")
    command = ["softhsm2-util", "--init-token", "--free", "--label", "liftlock", "--pin", PIN, "--so-pin", "so-pin-1"]
    subprocess.run(command, env={**os.environ, "SOFTHSM2_CONF": str(config)}, check=True, capture_output=True)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("SOFTHSM2_CONF", str(config))
        yield Token(module, config)


class _Kms(BaseHTTPRequestHandler):
    """`X-Amz-Target: TrentService.NAME`, JSON in and out; an error names its kind in `__type`."""

    keys: ClassVar[dict[str, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey]] = {}
    aliases: ClassVar[dict[str, str]] = {}

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        name = self.aliases.get(asked.get("KeyId", ""), asked.get("KeyId", ""))
        action = self.headers["X-Amz-Target"].removeprefix("TrentService.")
        if not self.headers["Authorization"].startswith("AWS4-HMAC-SHA256 "):
            self._send(403, {"__type": "MissingAuthenticationTokenException", "message": "unsigned"})
        elif action == "CreateKey":
            made = str(uuid.uuid4())
            self.keys[made] = _made(asked["KeySpec"])
            self._send(200, {"KeyMetadata": {"KeyId": made}})
        elif action == "CreateAlias":
            self.aliases[asked["AliasName"]] = asked["TargetKeyId"]
            self._send(200, {})
        elif name not in self.keys:
            self._send(400, {"__type": "NotFoundException", "message": f"{asked['KeyId']} is not found"})
        else:
            self._send(200, self._of_key(action, name, asked))

    def _of_key(self, action: str, name: str, asked: dict[str, Any]) -> dict[str, Any]:
        key = self.keys[name]
        if action == "DescribeKey":
            return {"KeyMetadata": {"KeyId": name}}
        if action == "GetPublicKey":
            form = serialization.PublicFormat.SubjectPublicKeyInfo
            public = key.public_key().public_bytes(serialization.Encoding.DER, form)
            return {"KeyId": name, "PublicKey": base64.b64encode(public).decode()}
        assert (action, asked["MessageType"], asked["SigningAlgorithm"]) == ("Sign", "DIGEST", "ECDSA_SHA_256")
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        signature = key.sign(base64.b64decode(asked["Message"]), ec.ECDSA(Prehashed(hashes.SHA256())))
        return {"KeyId": name, "Signature": base64.b64encode(signature).decode(), "SigningAlgorithm": "ECDSA_SHA_256"}

    def _send(self, status: int, said: dict[str, Any]) -> None:
        data = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/x-amz-json-1.1")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Quiet."""


def _made(spec: str) -> ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey:
    if spec == "ECC_NIST_P256":
        return ec.generate_private_key(ec.SECP256R1())
    return rsa.generate_private_key(65537, int(spec.removeprefix("RSA_")))


@pytest.fixture(scope="session")
def kms() -> Iterator[str]:
    """The service's HOST:PORT."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Kms)
    thread = threading.Thread(target=server.serve_forever)
    with pytest.MonkeyPatch.context() as environment:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            environment.setenv(name, "testing")
        environment.setenv("AWS_DEFAULT_REGION", "eu-central-1")
        environment.setenv("AWS_EC2_METADATA_DISABLED", "true")
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        server.server_close()
        thread.join()
