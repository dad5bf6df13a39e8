"""What evaluations keep is removed by its age and size, and never what is in use."""

from __future__ import annotations

import os
import time
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tasks.kept import MOST_SECONDS, YOUNG_SECONDS, collect, used

DAY = 86400


def keep(state: Path, name: str, days: float, size: int = 10) -> Path:
    """A file that was used so many days ago."""
    file = state / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"x" * size)
    os.utime(file, (time.time() - days * DAY,) * 2)
    return file


def test_what_nobody_asked_for_in_thirty_days_goes_and_what_is_used_stays(tmp_path: Path) -> None:
    old, recent, again = (keep(tmp_path, f"answers/{days}.jsonl", days) for days in (31, 29, 40))
    report, elsewhere = keep(tmp_path, "reports/a.json", 31), keep(tmp_path, "runs/a.json", 99)
    assert used(again)
    assert not used(tmp_path / "answers" / "never")
    assert sorted(collect(tmp_path)) == sorted([old, report])
    assert recent.exists() and again.exists() and elsewhere.exists()
    assert collect(tmp_path) == []


def test_without_any_folder_there_is_nothing_to_remove(tmp_path: Path) -> None:
    assert collect(tmp_path) == []


@given(st.lists(st.tuples(st.floats(0.0, 60), st.integers(0, 50)), max_size=12), st.integers(0, 300))
def test_the_least_recently_used_go_until_the_rest_is_small_enough(
    tmp_path_factory: object, files: list[tuple[float, int]], most: int
) -> None:
    state = tmp_path_factory.mktemp("kept")  # type: ignore[attr-defined]
    ages = {keep(state, f"answers/{number}", days, size): days for number, (days, size) in enumerate(files)}
    sizes = {file: file.stat().st_size for file in ages}
    removed = collect(state, most)
    left = [file for file in ages if file.exists()]
    assert set(left) | set(removed) == set(ages)
    assert all(ages[file] * DAY <= MOST_SECONDS + 60 for file in left)
    old = [file for file in left if ages[file] * DAY > YOUNG_SECONDS + 60]
    assert sum(sizes[file] for file in left) <= most or not old
    assert all(ages[gone] >= ages[file] for gone in removed for file in left)
