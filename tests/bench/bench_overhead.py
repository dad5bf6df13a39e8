"""make bench-overhead: what the orchestration costs a stage. No-op stages through the same Stage class, flow and servers.

Limits: at most 0.25 s a stage, and at most 3 % of a whole release (of the last champion's run in the state folder, where there is one).
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from tests.bench.figures import Figure, end, flags

STAGES = 9
LIMIT_SECONDS, LIMIT_SHARE = 0.25, 0.03


def last_release_seconds(state: Path) -> float | None:
    """Sum of the stages of the newest champion run that trained, in seconds."""
    for file in sorted((state / "runs").glob("*/run.json"), reverse=True):
        document = json.loads(file.read_text())
        if document["verdict"] == "champion" and not any(stage["cached"] for stage in document["stages"]):
            return float(sum(stage["seconds"] for stage in document["stages"]))
    return None


def main() -> int:
    flags(__doc__)
    from tasks.settings import get_settings
    from tasks.stack.addresses import export_client_settings
    from tasks.stack.control import up

    settings = get_settings()
    where = up(settings, lambda _: None)
    export_client_settings(where)
    os.environ["PREFECT_HOME"] = str(settings.state / "prefect")
    os.environ["PREFECT_RESULTS_LOCAL_STORAGE_PATH"] = str(settings.state / "results")
    from prefect import flow

    from tasks.run import start_run
    from tasks.stage import stage

    def noop(number: int, salt: str) -> str:
        return f"{number} {salt}"

    stages = [
        stage(f"noop-{n}", key=lambda number, salt: (number, salt), digest=str, note=str, artifact=str)(noop)
        for n in range(STAGES)
    ]

    @flow(name="bench-overhead")
    def bench(salt: str) -> float:
        start_run(settings.state, Path("bench"), "bench", resume=False, fresh=False, quiet=True).record(verdict="bench")
        began = time.perf_counter()
        for number, one in enumerate(stages):
            one(number, salt)
        return (time.perf_counter() - began) / STAGES

    salt = str(time.time())
    bench(f"warm {salt}")
    first, cached = bench(salt), bench(salt)
    whole = last_release_seconds(settings.state)
    share = first * STAGES / whole if whole else None
    rows = [
        Figure("a stage that runs", first, "s", "lower", LIMIT_SECONDS),
        Figure("a stage from the cache", cached, "s", "lower", LIMIT_SECONDS),
    ]
    if share is not None:
        rows.append(Figure(f"share of {STAGES} stages in the last release", share, "", "lower", LIMIT_SHARE))
    print(f"{'what':<44}{'measured':>10}{'limit':>9}{'ratio':>8}")
    for row in rows:
        print(f"{row.name:<44}{row.value:>10.4f}{row.goal:>9}{row.value / (row.goal or 1):>8.2f}")
    return end("overhead", rows)


if __name__ == "__main__":
    sys.exit(main())
