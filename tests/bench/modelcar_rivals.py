"""The other tools of bench_modelcar.py, installed into an environment of their own, and what a command costs."""

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PEERS = ROOT / ".toolchain" / "peers-modelcar"
PINS = ("olot==1.2.1", "oras==0.2.43", "kserve-storage==0.21.0")
POLL_SECONDS = 0.02
ORAS = """
import sys
from oras.client import OrasClient
OrasClient(hostname=sys.argv[1].split("/")[0], insecure=True).push(
    target=sys.argv[1], files=sys.argv[2:], disable_path_validation=True, quiet=True)
"""


@dataclass(frozen=True)
class Cost:
    """Of one command: its own peak memory, and the most that lay in its working folder."""

    seconds: float
    cpu_seconds: float
    peak_mib: float
    disk_bytes: int
    output: str


def install() -> Path:
    """The environment's Python; made on the first call."""
    python = PEERS / "bin" / "python"
    stamp = PEERS / ".liftlock-pins"
    if not stamp.exists() or stamp.read_text() != "\n".join(PINS):
        subprocess.run([sys.executable, "-m", "venv", str(PEERS)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *PINS], check=True)
        stamp.write_text("\n".join(PINS))
    return python


def measure(command: list[str], work: Path) -> Cost:
    """Runs it in `work`, with its temporary files there too."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(work), "TMPDIR": str(work), "OMP_NUM_THREADS": "1"}
    with (work / ".output").open("w+") as output:
        began = time.perf_counter()
        process = subprocess.Popen(command, cwd=work, env=environment, stdout=output, stderr=subprocess.STDOUT)
        peak_kib = disk = 0
        while not (waited := os.wait4(process.pid, os.WNOHANG))[0]:
            peak_kib = max(peak_kib, _peak(process.pid))
            disk = max(disk, used(work))
            time.sleep(POLL_SECONDS)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(waited[1])
        output.seek(0)
        said = output.read()
    if process.returncode:
        raise RuntimeError(f"{command[0]} ended with {process.returncode}: {said[-2000:]}")
    usage = waited[2]
    return Cost(seconds, usage.ru_utime + usage.ru_stime, peak_kib / 1024, max(disk, used(work)), said)


def used(folder: Path) -> int:
    """Bytes of regular files; what vanishes while it is counted does not count."""
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(where) / name).lstat().st_size
            except FileNotFoundError:
                continue
    return total


def _peak(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)
