"""A file is written whole or stays as it was."""

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
