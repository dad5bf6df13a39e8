"""make bench-chaos: whole releases, in each of which one thing breaks at a random moment of a random stage; then the same command again.

A process of the stack is killed -9 (the pipeline, the registry, supervisord and every part), or stops answering; the disk is
full, the pipeline's clock jumps, the way to the registry drops or stalls. The same command must end as champion, with one new
version, one ledger line for each alias, a whole chain and an answering gateway; after `down` no process and no port is left.

100 releases, `--short` one for each fault, `--releases N`; `--only clock` makes those faults alone; `--seed N` draws the same
again. A table, one line of JSON, exit 1 on a miss. A release that failed before its fault was made is a miss.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.bench.chaos_checks import listening, misses, strays, versions
from tests.bench.chaos_faults import Registry, Scene, kinds_here, wall_clock
from tests.bench.figures import Figure, end
from tests.fix_envoy import free_ports
from tests.fix_faulty_proxy import FaultyProxy
from tests.fix_stack import ROOT, Stack, quick_spec

NAME, GIVE_UP_SECONDS, AGAIN = "chaos", 1200.0, 3
DISK = "size=6g"


@dataclass(frozen=True)
class Broken(Stack):
    """A stack whose commands go to the proxied registry; `more` is added to the environment."""

    registry: str = ""
    more: tuple[tuple[str, str], ...] = ()

    @property
    def environment(self) -> dict[str, str]:
        return {**super().environment, "LIFTLOCK_REGISTRY": self.registry, **dict(self.more)}


@dataclass(frozen=True)
class Round:
    """One release: what broke when, how often the command was given, and what was missed."""

    release: int
    fault: str
    at: str
    met: str
    codes: tuple[int, ...]
    seconds: float
    missed: tuple[str, ...]


class Seen:
    """The stages that a release told as done, from its output, as they come."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.done: set[str] = set()
        self.text: list[str] = []
        self._thread = threading.Thread(target=self._read, args=(process,), daemon=True)
        self._thread.start()

    def _read(self, process: subprocess.Popen[str]) -> None:
        for line in process.stdout or ():
            self.text.append(line)
            if line.startswith("✓"):
                self.done.add(line.split()[1])

    def wait_for(self, stage: str | None, process: subprocess.Popen[str]) -> None:
        while stage is not None and stage not in self.done and process.poll() is None:
            time.sleep(0.02)


def one_release(
    number: int, kind: str, stages: list[tuple[str, float]], scene: Scene, stack: Broken, folder: Path
) -> Round:
    spec, before = quick_spec(folder / str(number), NAME, seed=number, items=32), versions(scene.state, NAME)
    began, place = time.monotonic(), scene.dice.randrange(len(stages))
    moment = scene.dice.uniform(0, stages[place][1])
    broken = Broken(stack.state, stack.registry, tuple(scene.environment(kind).items()))
    process = broken.start("release", str(spec))
    scene.pipeline, seen = process.pid, Seen(process)
    seen.wait_for(stages[place - 1][0] if place else None, process)
    time.sleep(moment)
    alive = process.poll() is None
    met = scene.make(kind) if alive else "the release had ended"
    codes = [ended(process)]
    unmade = [] if alive or codes == [0] else [f"it ended before the fault: {''.join(seen.text)[-400:]}"]
    scene.settle()
    while (codes[-1] != 0 and len(codes) <= AGAIN) or (
        kind == "kill supervisord" and len(codes) == 1
    ):  # `up` brings it back
        again = stack.run("release", str(spec), timeout=GIVE_UP_SECONDS)
        codes.append(again.returncode)
        seen.text.append(again.stderr)
    missed = (
        misses(stack, NAME, before) if codes[-1] == 0 else [f"it ended with {codes[-1]}: {''.join(seen.text)[-400:]}"]
    )
    missed += unmade
    at = f"{moment:.1f} s into {stages[place][0]}"
    return Round(number, kind, at, met, tuple(codes), time.monotonic() - began, tuple(missed))


def ended(process: subprocess.Popen[str]) -> int:
    """Its exit code; one that hangs is killed, which is a code of its own."""
    try:
        return process.wait(timeout=GIVE_UP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def plan(kinds: list[str], count: int, dice: random.Random) -> list[str]:
    """Each kind as often as any other, in a random order."""
    whole = [kind for _ in range(count // len(kinds) + 1) for kind in dice.sample(kinds, len(kinds))]
    return whole[:count]


def run(
    kinds: list[str], count: int, seed: int, folder: Path, disk: Path | None, jumping: Path | None
) -> tuple[list[Round], list[str]]:
    dice, (port,) = random.Random(seed), free_ports(1)
    registry = Registry(folder, port)
    registry.start()
    state, rounds = (disk or folder) / "state", list[Round]()
    with FaultyProxy(registry.url) as proxy:
        stack = Broken(state, f"http://{proxy.address}")
        scene = Scene(state, registry, proxy, folder / "clock", disk, jumping, dice=dice)
        try:
            first = stack.run("release", str(quick_spec(folder / "first", NAME, seed=10_000, items=32)))
            if first.returncode != 0:
                raise SystemExit(f"the release before the first fault failed: {first.stderr[-800:]}")
            stages = [(one["name"], float(one["seconds"])) for one in stack.last_run()["stages"]]
            for number, kind in enumerate(plan(kinds, count, dice), 1):
                rounds.append(one_release(number, kind, stages, scene, stack, folder))
                print(_line(rounds[-1]), flush=True)
                if rounds[-1].codes[-1] != 0:
                    break  # the stack is not well: what follows would say nothing
            ports = {*stack.ports().values()}
        finally:
            stack.run("down", timeout=300)
            registry.kill()
    left = [f"left after down: {one}" for one in strays(state, supervised=False)]
    return rounds, left + [f"port {one} is open after down" for one in listening(ports)]


def _line(one: Round) -> str:
    said = "; ".join(one.missed) or "right"
    codes = " then ".join(str(code) for code in one.codes)
    return (
        f"{one.release:>4}  {one.fault:<17} {one.at:<28} {one.met:<44} exit {codes:<14} {one.seconds:>5.0f} s  {said}"
    )


def mounted(folder: Path) -> Path | None:
    """A small file system of its own for the state, which only root can mount; else no disk is filled."""
    disk = folder / "disk"
    disk.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", DISK, "tmpfs", str(disk)], capture_output=True, check=False)
    return disk if done.returncode == 0 else None


def left_out(disk: Path | None, jumping: Path | None) -> list[str]:
    """The faults that this machine cannot make, and what it would need."""
    clock = [] if jumping else ["a clock that jumps: there is no C compiler (Debian: apt-get install gcc libc6-dev)"]
    return clock + ([] if disk else ["a full disk: no file system could be mounted (root can)"])


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--releases", type=int, default=100)
    parser.add_argument("--short", action="store_true", help="one release for each fault")
    parser.add_argument("--only", default="", help="faults whose name begins so, as in `clock` or `kill pi`")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="liftlock-chaos-"))
    folder.chmod(0o755)
    disk, jumping = mounted(folder), wall_clock(folder)
    kinds = [kind for kind in kinds_here(disk, jumping) if kind.startswith(asked.only)]
    count = len(kinds) if asked.short else asked.releases
    print(f"{count} releases, seed {asked.seed}, {os.cpu_count()} cores, from {ROOT}", flush=True)
    missing = left_out(disk, jumping)
    for one in missing:
        print(f"left out: {one}", flush=True)
    try:
        rounds, left = run(kinds, count, asked.seed, folder, disk, jumping)
    finally:
        if disk:
            subprocess.run(["umount", "-l", str(disk)], check=False)
        shutil.rmtree(folder, ignore_errors=True)
    for one in left:
        print(one)
    figures = [
        Figure("releases lost, doubled or left half-way", sum(bool(one.missed) for one in rounds), goal=0, noise=0),
        Figure("releases not reached", count - len(rounds), goal=0, noise=0),
        Figure("processes and ports left after down", len(left), goal=0, noise=0),
        Figure("releases that wanted the command again", sum(len(one.codes) > 1 for one in rounds), noise=1),
    ]
    details = {"seed": asked.seed, "only": asked.only, "left out": missing, "rounds": [asdict(one) for one in rounds]}
    return end("chaos", figures, short=asked.short, details=details)


if __name__ == "__main__":
    sys.exit(main())
