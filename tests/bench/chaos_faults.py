"""What goes wrong in make bench-chaos: one real fault at a time, made and taken back. Not a test."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tasks.stack.supervisor import Supervisor
from tests.fix_faulty_proxy import Fault, FaultyProxy
from tests.fix_registry import CONFIG

PARTS = ("postgres", "mlflow", "prefect", "worker", "watch", "vllm", "envoy")
STOPPED = ("postgres", "mlflow", "prefect")  # whose network stalls: nothing is lost, nothing is answered
HOLD_SECONDS = 10.0


@dataclass
class Registry:
    """docker-registry on loopback that can be killed and started again at the same port."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        config = self.folder / "registry.yml"
        config.write_text(CONFIG.format(folder=self.folder / "registry", port=self.port))
        program = shutil.which("docker-registry")
        if program is None:
            raise SystemExit("docker-registry is not on PATH: apt-get install docker-registry")
        quiet = subprocess.DEVNULL
        self.process = subprocess.Popen([program, "serve", str(config)], stdout=quiet, stderr=quiet)
        for _ in range(200):
            try:
                httpx.get(f"{self.url}/v2/").raise_for_status()
                return
            except httpx.HTTPError:
                time.sleep(0.05)
        raise SystemExit("docker-registry did not start")

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@dataclass
class Scene:
    """What a fault can reach. `disk` is a small file system that holds the state folder, None where none could be mounted;
    `clock` is the file with the seconds that the library `jumping` adds to the pipeline's wall clock.
    """

    state: Path
    registry: Registry
    proxy: FaultyProxy
    clock: Path
    disk: Path | None
    jumping: Path | None
    pipeline: int = 0  # its process id
    dice: random.Random = field(default_factory=random.Random)

    def environment(self, kind: str) -> dict[str, str]:
        """For the pipeline, where its clock is to jump."""
        self.clock.write_text("+0\n")
        if not kind.startswith("clock"):
            return {}
        return {"LD_PRELOAD": str(self.jumping), "WALL_CLOCK": str(self.clock)}

    def make(self, kind: str) -> str:
        """The fault, held as long as it lasts; says what was met."""
        what, _, of = kind.partition(" ")
        acts: dict[str, Callable[[str], str]] = {
            "kill": self._kill, "stall": self._stall, "network": self._network, "clock": self._clock, "disk": self._fill,
        }  # fmt: skip
        return acts[what](of)

    def _pid(self, part: str) -> int:
        if part == "pipeline":
            return self.pipeline
        if part == "supervisord":
            return int((self.state / "supervisord.pid").read_text())
        found = Supervisor(self.state).states().get(part)
        return found.pid if found else 0

    def _kill(self, part: str) -> str:
        if part == "registry":
            self.registry.kill()
            time.sleep(HOLD_SECONDS)
            self.registry.start()
            return f"registry was away for {HOLD_SECONDS:.0f} s"
        return f"pid {_send(self._pid(part), signal.SIGKILL)}"

    def _stall(self, part: str) -> str:
        pid = _send(self._pid(part), signal.SIGSTOP)
        time.sleep(HOLD_SECONDS)
        _send(pid, signal.SIGCONT)
        return f"pid {pid} answered nothing for {HOLD_SECONDS:.0f} s"

    def _network(self, how: str) -> str:
        """Of the next requests to the registry that send something: it takes them at some point of their bodies."""
        kind, after, times = (
            ("cut" if how == "drops" else "stall"),
            self.dice.randrange(400_000),
            self.dice.randint(1, 3),
        )
        self.proxy.faults = [Fault(kind, "^(POST|PATCH|PUT) ", times=times, after=after)]  # type: ignore[arg-type]
        return f"{times} requests of the push, after {after} bytes"

    def _clock(self, way: str) -> str:
        hours = self.dice.choice([1, 30]) * (1 if way == "forward" else -1)
        self.clock.write_text(f"{hours * 3600:+d}\n")
        return f"{hours:+d} h on the pipeline's wall clock"

    def _fill(self, _: str) -> str:
        filler = (self.disk or self.state) / "filler"
        with filler.open("wb", buffering=0) as out:
            written = 0
            try:
                while True:
                    written += out.write(bytes(1 << 16))
            except OSError:
                pass
        time.sleep(HOLD_SECONDS)
        filler.unlink()
        return f"{written >> 20} MiB filled for {HOLD_SECONDS:.0f} s"

    def settle(self) -> None:
        """Nothing of the last fault is left."""
        self.proxy.faults = []
        self.clock.write_text("+0\n")


def wall_clock(folder: Path) -> Path | None:
    """The library of wall_clock.c, built into the folder; None where there is no C compiler."""
    compiler, library = shutil.which("cc"), folder / "wall_clock.so"
    if compiler is None:
        return None
    source = Path(__file__).with_name("wall_clock.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", str(library), str(source)], check=True)
    return library


def kinds_here(disk: Path | None, jumping: Path | None) -> list[str]:
    """The faults that this machine can make."""
    kills = [f"kill {part}" for part in ("pipeline", "registry", "supervisord", *PARTS)]
    stalls = [f"stall {part}" for part in STOPPED]
    clock = ["clock forward", "clock back"] if jumping else []
    return [*kills, *stalls, "network drops", "network stalls", *clock, *(["disk full"] if disk else [])]


def _send(pid: int, number: int) -> int:
    """0 where the process is gone or was never there."""
    if not pid:
        return 0
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return 0
    return pid
