"""Installs LiteLLM's proxy for the live test of coherence, from exact pins."""

import subprocess
import sys
from pathlib import Path

PINS = Path(__file__).with_name("litellm.txt")


def install(folder: Path) -> Path:
    """The proxy's command in `folder`; made on the first call, and anew where the pins changed. Raises CalledProcessError."""
    command, stamp = folder / "bin" / "litellm", folder / ".liftlock-pins"
    if not command.exists() or not stamp.exists() or stamp.read_text() != PINS.read_text():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        subprocess.run([folder / "bin" / "pip", "install", "--quiet", "--no-deps", "-r", PINS], check=True)
        stamp.write_text(PINS.read_text())
    return command
