"""Git repositories over https on loopback: git's own http-backend behind a server with a certificate of its own."""

from __future__ import annotations

import os
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@contextmanager
def serving_git(root: Path, place: Path, authorization: str = "") -> Iterator[tuple[str, Path]]:
    """(address, certificate) of the repositories below `root`; the certificate is written to `place`.

    With `authorization` a request that has another header of that name gets 401.
    """
    certificate, key = place / "server.pem", place / "server.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    backend = Path(subprocess.run(["git", "--exec-path"], check=True, capture_output=True, text=True).stdout.strip())

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            if authorization and self.headers.get("Authorization") != authorization:
                self.send_error(401)
                return
            path, _, query = self.path.partition("?")
            told = {
                "GIT_PROJECT_ROOT": str(root), "GIT_HTTP_EXPORT_ALL": "1", "PATH_INFO": path, "QUERY_STRING": query,
                "REQUEST_METHOD": self.command, "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                "HTTP_GIT_PROTOCOL": self.headers.get("Git-Protocol", ""), "REMOTE_ADDR": "127.0.0.1",
                "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            }  # fmt: skip
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            done = subprocess.run(
                [backend / "git-http-backend"], input=body, capture_output=True, env={**os.environ, **told}, check=True
            )
            head, _, content = done.stdout.partition(b"\r\n\r\n")
            fields = [line.split(": ", 1) for line in head.decode().split("\r\n")]
            status = next((value.split()[0] for name, value in fields if name == "Status"), "200")
            self.send_response(int(status))
            for name, value in fields:
                if name != "Status":
                    self.send_header(name, value)
            self.send_header(
                "Content-Length", str(len(content))
            )  # without it the end would be a TLS connection cut off
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = answer

        def log_message(self, format: str, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"https://localhost:{server.server_address[1]}", certificate
        server.shutdown()
