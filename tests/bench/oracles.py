"""Installs what the tests of modelcars hold Liftlock against, into .toolchain: `python -m tests.bench.oracles`.

model-signing, cosign and oras; olot, oras-py and KServe's own fetcher; and the pinned busybox. What cannot be had on this
machine is told on standard error, and the tests that want it are skipped.
"""

import subprocess
import sys

from serving.modelcar.shell import ShellMissing, fetch_shell, shell_layer
from tests.bench import modelcar_rivals, peers_signing

TOOLCHAIN = modelcar_rivals.ROOT / ".toolchain"
BUSYBOX = TOOLCHAIN / "busybox" / "busybox"


def main() -> int:
    missing = []
    for what, install in (
        ("model-signing", lambda: peers_signing.install(TOOLCHAIN / "peers-signing")),
        ("oras-py and kserve-storage", modelcar_rivals.install),
    ):
        try:
            install()
        except subprocess.CalledProcessError as error:
            missing.append(f"{what}: pip ended with {error.returncode}")
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
