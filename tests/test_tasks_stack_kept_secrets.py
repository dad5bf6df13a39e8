"""A secret is made once, whole, for its owner alone, whoever is killed or comes second."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tasks.stack.kept_secrets import kept, postgres_password
from tests.fix_promotion import killed


def test_it_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    made = postgres_password(tmp_path / "state")
    file = tmp_path / "state" / "postgres.password"
    assert len(made) >= 32 and postgres_password(file.parent) == made
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert [path.name for path in file.parent.iterdir()] == ["postgres.password"]


def test_a_kill_while_it_is_made_leaves_no_name_and_the_next_makes_it(tmp_path: Path) -> None:
    file = tmp_path / "secret"

    def make() -> str:
        os.kill(os.getpid(), signal.SIGKILL)
        return "never"

    assert killed(lambda: kept(file, make) and None)
    assert not file.exists()
    assert kept(file, lambda: "made") == "made"


def test_the_empty_file_of_an_older_version_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "secret").touch(0o644)
    assert kept(tmp_path / "secret", lambda: "made") == (tmp_path / "secret").read_text() == "made"
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600


def test_many_first_users_get_the_same_one(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        found = set(pool.map(lambda number: kept(tmp_path / "secret", lambda: f"of {number}"), range(64)))
    assert len(found) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]


def test_what_cannot_be_made_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UnicodeEncodeError):
        kept(tmp_path / "secret", lambda: "\ud83d")
    assert list(tmp_path.iterdir()) == []
