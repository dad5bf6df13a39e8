"""What this machine computes with: its processor's flags, and whether a GPU answers. Standard library only, for set-up uses it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")


def read_cpuinfo() -> str:
    """Empty on a system without /proc/cpuinfo."""
    return _CPUINFO.read_text() if _CPUINFO.exists() else ""


def cores(cpuinfo: str, usable: int | None = None) -> int:
    """Physical cores among the processors that this process may use; each of these where /proc/cpuinfo names no cores."""
    usable = usable or len(os.sched_getaffinity(0))
    named = re.findall(r"^physical id\s*:\s*(\d+)$.*?^core id\s*:\s*(\d+)$", cpuinfo, re.MULTILINE | re.DOTALL)
    return min(usable, len(set(named)) or usable)


def has_gpu() -> bool:
    """An NVIDIA GPU that its driver answers for."""
    if shutil.which("nvidia-smi") is None:
        return False
    return subprocess.run(["nvidia-smi", "-L"], capture_output=True, check=False).returncode == 0
