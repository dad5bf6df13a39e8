"""make bench: runs the benches of the Makefile one after another and writes docs/figures.json and docs/figures.md.

    run_benches.py [BENCH …] [--short] [--peers PYTHON]

Without names all benches run. What a bench prints goes to stderr as it comes. The page is written after each bench, so that
one stopped early loses nothing. Exit 1 where a bench ended without figures, missed a goal, or is worse than the committed ones.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from pathlib import Path

import yaml

from tests.bench.figures import Ending, NoEnding, read_ending
from tests.bench.figures_page import key_of, machine, read, regressions, row_of, write

ROOT = Path(__file__).resolve().parents[2]
DATA, PAGE = ROOT / "docs" / "figures.json", ROOT / "docs" / "figures.md"
REASONS = Path(__file__).with_name("missed_goals.yaml")
OWN = ("bench",)  # prints no ending of this form
LONG = ("release", "gate-suite", "chaos")  # minutes each, without a form that is short enough
DRAWN = ("adapters", "growth")  # the whole form draws a picture of the docs with ARGS=--plot


def benches(makefile: str) -> list[str]:
    """The names of `make help`, without `bench-`."""
    found = re.findall(r"^(bench-[a-z-]+):.*##", makefile, re.MULTILINE)
    return [name.removeprefix("bench-") for name in found if name not in OWN]


def arguments_of(name: str, short: bool, peers: str | None) -> str:
    """What the bench's own target gets as ARGS; only rag has peers that need an environment of their own."""
    form = ["--short"] if short else ["--plot"] if name in DRAWN else []
    return " ".join([*form, *(["--peers", peers] if peers and name == "rag" else [])])


def run(name: str, arguments: str) -> tuple[Ending, float]:
    """Raises NoEnding where the last line is none, whatever the exit code."""
    argv = ["make", "--no-print-directory", f"bench-{name}", *([f"ARGS={arguments}"] if arguments else [])]
    began, lines = time.monotonic(), list[str]()
    with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            print(line, end="", file=sys.stderr, flush=True)
            lines.append(line)
    return read_ending("".join(lines)), time.monotonic() - began


def chosen(asked: list[str], known: list[str], short: bool) -> list[str]:
    if unknown := [name for name in asked if name not in known]:
        raise SystemExit(f"bench: no bench is named {', '.join(unknown)}; there are {', '.join(known)}")
    return asked or [name for name in known if not (short and name in LONG)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bench", nargs="*")
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--peers", help="for rag: a Python with the other stores")
    asked = parser.parse_args()
    names = chosen(asked.bench, benches((ROOT / "Makefile").read_text()), asked.short)
    committed, failed = read(DATA), list[str]()
    rows, ended = dict(committed), 0
    for name in names:
        print(f"--- bench-{name}", file=sys.stderr, flush=True)
        try:
            ending, seconds = run(name, arguments_of(name, asked.short, asked.peers))
        except NoEnding as error:
            failed.append(f"{name}: {error}")
            continue
        command = f"make bench-{name}" + (" ARGS=--short" if ending.short else "")
        row = row_of(ending, command, machine(), time.strftime("%Y-%m-%d"), _commit(), seconds)
        rows[key_of(name, ending.short)] = row
        ended += 1
        failed += [f"{name}: missed: {figure}" for figure in ending.missed]
        write(rows, DATA, PAGE, yaml.safe_load(REASONS.read_text()) or {})
    failed += [f"worse: {one}" for one in regressions(committed, rows)]
    page = f"{PAGE.relative_to(ROOT)} is {'written' if ended else 'as it was'}"
    print("\n".join([*failed, f"{ended} of {len(names)} benches ended; {len(failed)} remarks; {page}"]))
    return 1 if failed else 0


def _commit() -> str:
    return subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
