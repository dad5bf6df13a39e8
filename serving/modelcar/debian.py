"""Fetches a program out of a Debian package, by apt-get with a root of its own: no root rights, and nothing is installed.

The mirror is the one that this machine's apt uses, and packages are verified by Debian's archive key as apt does it. What
comes out is bytes; who pins them compares their sha256.
"""

import os
import re
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

SOURCES = (Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list"))
MIRROR = re.compile(r"^(?:URIs:|deb(?: \[[^]]*\])?)\s+(\S+)", re.MULTILINE)
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_SECONDS = 300


class PackageMissing(RuntimeError):
    """This machine's apt cannot give the package: it has no apt-get, no Debian mirror, or another version."""


def fetch_program(
    package: str,
    inside: str,
    destination: Path,
    *,
    suite: str,
    version: str | None = None,
    sources: Sequence[Path] = SOURCES,
) -> None:
    """The file `inside` (such as usr/bin/cosign) of an amd64 package of a Debian suite; complete or absent.

    `sources`: apt's lists, the first of which names the mirror. Raises PackageMissing.
    """
    destination.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=destination.parent, prefix=".liftlock-partial-") as temporary:
        root = Path(temporary)
        apt = _private_apt(root, suite, sources)
        _run([*apt, "update"], root)
        _run([*apt, "download", f"{package}={version}" if version else package], root)
        found = list(root.glob("*.deb"))
        if len(found) != 1:
            raise PackageMissing(f"apt-get downloaded no {package} of Debian's {suite}; look at this machine's mirror")
        _run(["dpkg-deb", "-x", str(found[0]), "unpacked"], root)
        program = root / "unpacked" / inside
        if not program.is_file():
            raise PackageMissing(f"the package {package} of Debian's {suite} has no {inside}; it was packed anew")
        program.replace(destination)


def _private_apt(root: Path, suite: str, sources: Sequence[Path]) -> list[str]:
    """An apt-get that reads and writes below `root`; only the system's proxy and certificate settings are kept."""
    mirror = next((found[1] for path in sources if (found := MIRROR.search(_text(path)))), None)
    if mirror is None or not KEYRING.is_file():
        raise PackageMissing(
            "this machine's apt names no Debian mirror; a Debian machine, or one with its keyring, does"
        )
    for part in ("etc/apt", "var/lib/apt/lists/partial", "var/cache/apt/archives/partial", "var/lib/dpkg"):
        (root / part).mkdir(parents=True)
    (root / "var/lib/dpkg/status").touch()
    (root / "etc/apt/sources.list").write_text(f"deb [signed-by={KEYRING}] {mirror} {suite} main\n")
    options = {
        "Dir": root,
        "Dir::State::status": root / "var/lib/dpkg/status",
        "Dir::Etc::sourceparts": "-",
        "Dir::Etc::parts": "/etc/apt/apt.conf.d",
        "APT::Architecture": "amd64",
        "APT::Architectures": "amd64",
        "APT::Sandbox::User": "root",
    }
    return ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in options.items())]


def _text(path: Path) -> str:
    return path.read_text() if path.is_file() else ""


def _run(command: list[str], folder: Path) -> None:
    environment = {"PATH": os.defpath + ":/usr/sbin:/sbin", "LC_ALL": "C.UTF-8"}
    try:
        subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=True, timeout=_SECONDS)
    except FileNotFoundError as error:
        raise PackageMissing(f"{command[0]} is not on this machine; only Debian and its kin have it") from error
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode("utf-8", "replace").strip().splitlines()
        raise PackageMissing(f"{command[0]} failed: {said[-1] if said else 'no words'}") from error
    except subprocess.TimeoutExpired as error:
        raise PackageMissing(f"{command[0]} took over {_SECONDS} s; see the network and try again") from error
