"""Each promise of docs/architecture.md names a test that is there, and so does every other page that names one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TABLE = re.compile(r"^\| (\d) \| [^|]+ \| ([^|]+) \|$", re.M)
NAMED = re.compile(r"\b(test_\w+\.py)(?:::(\w+))?")
PAGES = [
    page for page in [ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))] if page.name != "decisions.md"
]
TESTS = sorted({found for page in PAGES for found in NAMED.findall(page.read_text())})


def test_each_of_the_nine_promises_names_a_test() -> None:
    rows = TABLE.findall((ROOT / "docs" / "architecture.md").read_text())
    assert [int(number) for number, _ in rows] == list(range(1, 10))
    assert all(NAMED.search(tests) for _, tests in rows)


@pytest.mark.parametrize(("file", "test"), TESTS)
def test_a_test_that_a_page_names_is_there(file: str, test: str) -> None:
    text = (ROOT / "tests" / file).read_text()
    assert not test or re.search(rf"^def {test}\(", text, re.M)
