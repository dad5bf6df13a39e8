"""The registry of bench_modelcar.py: Debian 13's docker-registry where `python -m tests.bench.oracles` installed it, else PATH's.

Both are the same program; Debian 12's is built with Go 1.19, whose sha256 does not use the processor's SHA instructions, so
that the registry needs four times as long as the client to hash what it receives.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.modelcar_rivals import ROOT

NEWER = ROOT / ".toolchain" / "registry" / "docker-registry"


def program() -> str | None:
    return str(NEWER) if NEWER.exists() else shutil.which("docker-registry")


def describe(registry: str) -> str:
    """Its version, and the Go that it was built with: the last words of `go1.NN` in the file."""
    version = subprocess.run([registry, "--version"], capture_output=True, text=True, check=True).stdout.split()[-1]
    data = Path(registry).read_bytes()
    at = data.find(b"go1.")
    return f"docker-registry {version}, {data[at : at + 12].split(bytes(1))[0].decode('ascii', 'replace')}"


@contextmanager
def running(registry: str, work: Path) -> Iterator[tuple[str, Path]]:
    """With an empty store; its address and its storage folder."""
    folder = Path(tempfile.mkdtemp(prefix="registry-", dir=work))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    (folder / "config.yml").write_text(
        "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\n"
        f"storage: {{filesystem: {{rootdirectory: {folder / 'storage'}}}}}\nhttp: {{addr: '{address}', secret: bench}}\n"
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([registry, "serve", str(folder / "config.yml")], stdout=log, stderr=log)
        try:
            _await(address)
            yield address, folder / "storage"
        finally:
            process.terminate()
            process.wait()
            shutil.rmtree(folder)


def _await(address: str) -> None:
    host, port = address.split(":")
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex((host, int(port))) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError("docker-registry did not start in 10 s")
