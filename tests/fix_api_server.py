"""A real Kubernetes API server with etcd on loopback, and the Kyverno CLI: admission is judged by the programs themselves.

The programs are found in KUBEBUILDER_ASSETS (the convention of controller-runtime's envtest; `setup-envtest use 1.36`
fills such a folder), else in `../shared/kube` beside the checkout, whose `kube` unpacks them once, else on PATH. Tests
that ask for one that is not there are skipped, with the reason.
"""

import fcntl
import os
import shutil
import ssl
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fix_envoy import free_ports
from tests.fix_waiting import PATIENCE_SECONDS

TOKEN = "only-for-tests"
ASSETS = "KUBEBUILDER_ASSETS"
SHARED = Path(__file__).resolve().parents[2] / "shared"
UNPACK_SECONDS = 300
BARE = ("--authorization-mode=RBAC", "--disable-admission-plugins=ServiceAccount")  # nobody makes service accounts


def find_program(name: str) -> str:
    """Its path; skips the test where it is absent."""
    places = os.pathsep.join(filter(None, (assets(), os.environ.get("PATH"))))
    found = shutil.which(name, path=places)
    if found is None:
        pytest.skip(f"{name} is neither in {ASSETS} nor in ../shared/kube nor on PATH")
    return found


@cache
def assets() -> str | None:
    """The folder of the programs; unpacking them takes 12 s on two cores, once a user, and one process at a time."""
    kube = SHARED / "kube" / "kube"
    if ASSETS in os.environ or not kube.is_file():
        return os.environ.get(ASSETS)
    with kube.open() as one:
        fcntl.flock(one, fcntl.LOCK_EX)  # two that unpack at once trip over each other's links
        done = subprocess.run(
            [sys.executable, kube, "unpack"], capture_output=True, text=True, check=True, timeout=UNPACK_SECONDS
        )
    return done.stdout.strip()


def find_definition(file: str) -> Path:
    """A CustomResourceDefinition in the folder LIFTLOCK_TEST_CRDS or `../shared/crds`; skips the test without it."""
    path = Path(os.environ.get("LIFTLOCK_TEST_CRDS", SHARED / "crds")) / file
    if not path.is_file():
        pytest.skip(f"{file} is neither in LIFTLOCK_TEST_CRDS nor in ../shared/crds")
    return path


@dataclass
class ApiServer:
    """An admin's client; paths as in the Kubernetes API reference. `folder` holds its files and logs."""

    client: httpx.Client
    authority: Path
    folder: Path
    argv: list[str]
    process: subprocess.Popen[bytes]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def start(self) -> None:
        """Again, after a kill; returns when it is ready."""
        self.process = started(self.argv, self.folder / "server.log")
        _wait_until_ready(self.client, self.process, self.folder / "server.log")

    def apply(self, path: str, document: dict[str, Any]) -> None:
        """Server-side apply."""
        answer = self.client.patch(
            path,
            params={"fieldManager": "test", "force": "true"},
            headers={"content-type": "application/apply-patch+yaml"},
            json=document,
        )
        assert answer.status_code in (200, 201), answer.text

    def namespace(self, labels: dict[str, str]) -> str:
        """A new one, so that no two tests meet."""
        name = f"test-{uuid.uuid4().hex[:10]}"
        metadata = {"name": name, "labels": labels}
        self.apply(f"/api/v1/namespaces/{name}", {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        return name

    def create_pod(self, namespace: str, pod: dict[str, Any], *, dry_run: bool = True) -> httpx.Response:
        params = {"dryRun": "All"} if dry_run else {}
        return self.client.post(f"/api/v1/namespaces/{namespace}/pods", params=params, json=pod)


@pytest.fixture(scope="session")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """No controllers, scheduler or kubelets run: what is created stays as it is."""
    with running_api_server(tmp_path_factory.mktemp("api-server")) as server:
        yield server


@contextmanager
def running_api_server(folder: Path, *flags: str) -> Iterator[ApiServer]:
    """One of the caller's own, for tests that take cluster-wide things away or add controllers. `flags`: in place of BARE."""
    client_port, peer_port, port = free_ports(3)
    etcd_url, key = f"http://127.0.0.1:{client_port}", folder / "service-account.key"
    subprocess.run([find_program("openssl"), "genrsa", "-out", key, "2048"], check=True, capture_output=True)
    (folder / "tokens.csv").write_text(f'{TOKEN},admin,admin,"system:masters"\n')
    etcd = [
        find_program("etcd"), f"--data-dir={folder}/etcd", f"--listen-client-urls={etcd_url}", "--unsafe-no-fsync",
        f"--advertise-client-urls={etcd_url}", f"--listen-peer-urls=http://127.0.0.1:{peer_port}",
        f"--initial-advertise-peer-urls=http://127.0.0.1:{peer_port}",
        f"--initial-cluster=default=http://127.0.0.1:{peer_port}",
    ]  # fmt: skip
    server = [
        find_program("kube-apiserver"), f"--etcd-servers={etcd_url}", f"--secure-port={port}", "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1", "--endpoint-reconciler-type=none", f"--cert-dir={folder}/certs",
        f"--token-auth-file={folder}/tokens.csv", f"--service-account-key-file={key}",
        f"--service-account-signing-key-file={key}", f"--service-account-issuer=https://127.0.0.1:{port}",
        "--service-cluster-ip-range=10.96.0.0/16", *(flags or BARE),
    ]  # fmt: skip
    with running(etcd, folder / "etcd.log"):
        process = started(server, folder / "server.log")
        tls = _wait_for_certificate(folder, process)
        headers = {"authorization": f"Bearer {TOKEN}"}
        with httpx.Client(base_url=f"https://127.0.0.1:{port}", headers=headers, verify=tls, timeout=30) as client:
            made = ApiServer(client, folder / "certs" / "apiserver.crt", folder, server, process)
            try:
                _wait_until_ready(client, process, folder / "server.log")
                yield made
            finally:
                stop(made.process)


def started(argv: list[str], log: Path, environment: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        return subprocess.Popen(argv, stdout=output, stderr=output, cwd=log.parent, env=environment)


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def running(argv: list[str], log: Path, environment: dict[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    process = started(argv, log, environment)
    try:
        yield process
    finally:
        stop(process)


def _wait_for_certificate(folder: Path, process: subprocess.Popen[bytes]) -> ssl.SSLContext:
    """The server signs its own certificate at its first start."""
    certificate = folder / "certs" / "apiserver.crt"
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (certificate.is_file() and b"END CERTIFICATE" in certificate.read_bytes()):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"kube-apiserver did not start: {(folder / 'server.log').read_text()[-2000:]}")
        time.sleep(0.05)
    return ssl.create_default_context(cadata=certificate.read_text())


def _wait_until_ready(client: httpx.Client, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            if client.get("/readyz").status_code == 200:
                return
        except httpx.TransportError:
            pass
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"kube-apiserver is not ready: {log.read_text()[-2000:]}")
        time.sleep(0.1)
