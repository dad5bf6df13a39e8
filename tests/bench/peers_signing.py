"""Installs the programs that images are held against: model-signing in a virtual environment, Debian 13's cosign and oras.

The two need nothing of Debian 13 but its archive; they run on Debian 12, and the system's packages stay as they are.
"""

import shutil
import subprocess
import sys
from pathlib import Path

from serving.modelcar.debian import PackageMissing, fetch_program

PINNED = ("model-signing==1.1.1", "pyOpenSSL==26.4.0", "cyclonedx-python-lib[json-validation]==11.12.0")
PROGRAMS = ("cosign", "oras")
SUITE = "trixie"


def install(folder: Path) -> None:
    """Into `folder`/bin. A program that apt-get cannot fetch is left out, with a word on standard error."""
    if not (folder / "bin" / "model_signing").exists():
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([folder / "bin" / "pip", "install", "--quiet", *PINNED], check=True)
    for program in PROGRAMS:
        if shutil.which(program) or (folder / "bin" / program).exists():
            continue
        try:
            fetch_program(program, f"usr/bin/{program}", folder / "bin" / program, suite=SUITE)
        except PackageMissing as error:
            print(f"{program} is not installed: {error}", file=sys.stderr)
