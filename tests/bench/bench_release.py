"""make bench-release: a clone of this checkout's HEAD in an empty folder, and three releases there.

1. `make release` with everything to install; 2. `make clean`, then `make release` (installed, empty state);
3. `make release` again with nothing changed. Limits: 15 minutes, 6 minutes, 25 seconds. Packages may come from the machine's
own pip and npm caches. The clone and its stack are removed at the end.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.bench.figures import Figure, end, flags

ROOT = Path(__file__).resolve().parents[2]
LIMITS = {"from an empty folder": 15 * 60.0, "installed": 6 * 60.0, "nothing changed": 25.0}


def make(clone: Path, *targets: str) -> float:
    """Wall seconds; ends the bench when make fails."""
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("LIFTLOCK_", "MAKE", "MFLAGS"))
    }
    began = time.perf_counter()
    done = subprocess.run(["make", *targets], cwd=clone, env=environment, check=False)
    if done.returncode != 0:
        raise SystemExit(f"make {' '.join(targets)} ended with {done.returncode}")
    return time.perf_counter() - began


def stages_of(clone: Path) -> list[dict[str, Any]]:
    newest = max((clone / ".liftlock" / "runs").glob("*/run.json"), key=lambda file: file.stat().st_mtime)
    return list(json.loads(newest.read_text())["stages"])


def main() -> int:
    flags(__doc__)
    folder = Path(tempfile.mkdtemp(prefix="liftlock-bench-"))
    folder.chmod(0o755)
    clone = folder / "liftlock"
    try:
        subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
        seconds = {"from an empty folder": make(clone, "release")}
        make(clone, "clean")
        seconds["installed"] = make(clone, "release")
        stages = stages_of(clone)
        seconds["nothing changed"] = make(clone, "release")
        make(clone, "down")
    finally:
        if (clone / ".venv").exists():
            subprocess.run(["make", "down"], cwd=clone, check=False, capture_output=True)
        shutil.rmtree(folder, ignore_errors=True)
    print(f"\n{'release':<24}{'seconds':>9}{'limit':>8}{'ratio':>8}")
    for what, limit in LIMITS.items():
        print(f"{what:<24}{seconds[what]:>9.1f}{limit:>8.0f}{seconds[what] / limit:>8.2f}")
    whole = seconds["installed"]
    inside = sum(stage["seconds"] for stage in stages)
    print(f"\n{'stage (installed)':<24}{'seconds':>9}{'share':>8}")
    for stage in [*stages, {"name": "stack and start", "seconds": whole - inside}]:
        print(f"{stage['name']:<24}{stage['seconds']:>9.1f}{stage['seconds'] / whole:>8.1%}")
    shares = {stage["name"]: round(stage["seconds"], 1) for stage in stages}
    figures = [Figure(what, seconds[what], "s", "lower", limit) for what, limit in LIMITS.items()]
    return end("release", figures, details={"stages": shares})


if __name__ == "__main__":
    sys.exit(main())
