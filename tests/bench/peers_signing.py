"""Installs the programs that signing is held against: model-signing in a virtual environment, and Debian 13's cosign.

cosign needs nothing of Debian 13 but its archive: it is fetched by apt-get with a root of its own, from the mirror that
this machine's apt uses, and the system's packages stay as they are.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PINNED = ("model-signing==1.1.1", "pyOpenSSL==26.4.0", "cyclonedx-python-lib[json-validation]==11.12.0")
SOURCES = (Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list"))
MIRROR = re.compile(r"^(?:URIs:|deb(?: \[[^]]*\])?)\s+(\S+)", re.MULTILINE)
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


def install(folder: Path) -> None:
    """Into `folder`/bin. cosign is left out, with a word on standard error, where apt-get cannot fetch it."""
    if not (folder / "bin" / "model_signing").exists():
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([folder / "bin" / "pip", "install", "--quiet", *PINNED], check=True)
    if shutil.which("cosign") or (folder / "bin" / "cosign").exists():
        return
    try:
        fetch_cosign(folder / "bin" / "cosign")
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"cosign is not installed here: {error}", file=sys.stderr)


def fetch_cosign(destination: Path) -> None:
    """Raises OSError, CalledProcessError."""
    mirror = next(found[1] for path in SOURCES if path.is_file() and (found := MIRROR.search(path.read_text())))
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        for part in ("etc/apt", "var/lib/apt/lists/partial", "var/cache/apt/archives/partial", "var/lib/dpkg"):
            (root / part).mkdir(parents=True)
        (root / "var/lib/dpkg/status").touch()
        (root / "etc/apt/sources.list").write_text(f"deb [signed-by={KEYRING}] {mirror} trixie main\n")
        options = {
            "Dir": root,
            "Dir::State::status": root / "var/lib/dpkg/status",
            "Dir::Etc::sourceparts": "-",
            "Dir::Etc::parts": "/etc/apt/apt.conf.d",
            "APT::Sandbox::User": "root",
        }
        apt = ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in options.items())]
        subprocess.run([*apt, "update"], check=True, capture_output=True)
        subprocess.run([*apt, "download", "cosign"], check=True, capture_output=True, cwd=root)
        (package,) = root.glob("cosign_*.deb")
        subprocess.run(["dpkg-deb", "-x", package, root / "unpacked"], check=True)
        shutil.copy2(root / "unpacked" / "usr" / "bin" / "cosign", destination)
