"""docs/rag.md leads through rag/: a sample that stays readable in 15 minutes, and every other file in its place."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_page_names_every_file_once_and_the_sample_stays_about_600_lines() -> None:
    page = (ROOT / "docs" / "rag.md").read_text()
    first, rest = page.split("## Read the code")[1].split("## Documents")[0].split("The rest can wait")
    sample, others = (re.findall(r"`(rag/[\w/.]+)`", part) for part in (first, rest))
    files = {path for path in (ROOT / "rag").rglob("*") if path.is_file() and path.suffix != ".pyc"}
    there = {path.relative_to(ROOT).as_posix() for path in files} - {"rag/__init__.py"}
    folders = tuple(name for name in others if name.endswith("/"))
    assert {name for name in there if not name.startswith(folders)} == {*sample, *others} - {*folders}
    assert len({*sample, *others}) == len(sample) + len(others)
    assert sum(len((ROOT / name).read_text().splitlines()) for name in sample) <= 620
