"""Installs the programs of others that tests need, into .toolchain: `python -m tests.bench.oracles`.

model-signing, cosign and oras; olot, oras-py and KServe's own fetcher; the pinned busybox; and LiteLLM's proxy. What cannot be had on this
machine is told on standard error, and the tests that want it are skipped.
"""

import subprocess
import sys

from serving.modelcar.debian import PackageMissing, fetch_program
from serving.modelcar.shell import ShellMissing, fetch_shell, shell_layer
from tests.bench import litellm_proxy, modelcar_rivals, peers_signing

TOOLCHAIN = modelcar_rivals.ROOT / ".toolchain"
REGISTRY = TOOLCHAIN / "registry" / "docker-registry"  # for the bench; tests take the system's
BUSYBOX = TOOLCHAIN / "busybox" / "busybox"


def main() -> int:
    missing = []
    for what, install in (
        ("model-signing", lambda: peers_signing.install(TOOLCHAIN / "peers-signing")),
        ("oras-py and kserve-storage", modelcar_rivals.install),
        ("LiteLLM's proxy", lambda: litellm_proxy.install(TOOLCHAIN / "litellm")),
    ):
        try:
            install()
        except subprocess.CalledProcessError as error:
            missing.append(f"{what}: pip ended with {error.returncode}")
    if not REGISTRY.exists():
        try:
            fetch_program("docker-registry", "usr/bin/docker-registry", REGISTRY, suite=peers_signing.SUITE)
        except PackageMissing as error:
            missing.append(f"docker-registry: {error}")
    try:
        shell_layer(BUSYBOX)
    except ShellMissing:
        try:
            fetch_shell(BUSYBOX)
        except ShellMissing as error:
            missing.append(f"busybox: {error}")
    for line in missing:
        print(f"oracles: {line}", file=sys.stderr)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
