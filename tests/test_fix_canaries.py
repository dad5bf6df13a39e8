"""The search for planted secrets finds them where it has to; without this the test that finds none would say nothing."""

from __future__ import annotations

import base64
import gzip
from pathlib import Path

import pytest

from tests import fix_canaries
from tests.fix_canaries import Search

VALUE = "canary-0123456789abcdef"


@pytest.mark.parametrize(
    "written",
    [
        f"password={VALUE}&x",
        f"\\x{VALUE.encode().hex()}",
        *(base64.b64encode(f"{user}:{VALUE}:".encode()).decode() for user in ("a", "ab", "abc")),
    ],
)
def test_each_form_is_found(written: str) -> None:
    search = Search({"one": VALUE, "another": "canary-of-nobody"})
    search.look("place", written.encode())
    assert search.found == {("place", "one")}


def test_files_are_found_packed_and_across_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fix_canaries, "CHUNK", 64)
    (tmp_path / "log").write_text("x" * 55 + VALUE)
    (tmp_path / "old").write_bytes(gzip.compress(f"line\n{VALUE}".encode()))
    (tmp_path / "clean").write_text(VALUE[:-1])
    search = Search({"one": VALUE})
    search.folder(tmp_path)
    assert search.found == {("log", "one"), ("old", "one")}
