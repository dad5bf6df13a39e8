"""A file is written whole or stays as it was."""

import resource
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tasks.whole_file import write_whole


def test_the_folder_is_made_and_nothing_else_is_left(tmp_path: Path) -> None:
    file = tmp_path / "a" / "b.json"
    write_whole(file, "één\n")
    write_whole(file, "two\n")
    assert file.read_bytes() == b"two\n"
    assert list(file.parent.iterdir()) == [file]


def test_half_a_character_is_refused_before_the_file_changes_or_replaced_where_asked(tmp_path: Path) -> None:
    file = tmp_path / "b.json"
    write_whole(file, "before")
    with pytest.raises(UnicodeEncodeError):
        write_whole(file, "\ud83d")
    assert file.read_text() == "before"
    write_whole(file, "\ud83d", "replace")
    assert file.read_text() == "?"


def test_two_writers_at_once_leave_one_whole_text_and_nothing_else(tmp_path: Path) -> None:
    file, texts = tmp_path / "b.json", [str(number) * 200_000 for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda text: write_whole(file, text), texts * 4))
    assert file.read_text() in texts
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_that_cannot_be_replaced_leaves_no_temporary_one(tmp_path: Path) -> None:
    (tmp_path / "b.json" / "inside").mkdir(parents=True)
    with pytest.raises(OSError, match="directory"):
        write_whole(tmp_path / "b.json", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["b.json"]


def test_a_full_disk_leaves_the_old_text_and_no_temporary_file(tmp_path: Path) -> None:
    file = tmp_path / "b.json"
    write_whole(file, "before")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
        with pytest.raises(OSError, match="File too large"):
            write_whole(file, "x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert file.read_text() == "before" and list(tmp_path.iterdir()) == [file]
