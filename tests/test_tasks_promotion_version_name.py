"""What a person may write for a version."""

import pytest

from tasks.promotion.version_name import NoSuchVersion, asked


def test_the_three_forms() -> None:
    assert asked("router") == ("router", "candidate", None)
    assert asked("router@staging") == ("router", "staging", None)
    assert asked("router/12") == ("router", None, "12")


@pytest.mark.parametrize(
    "text", ["", "Ticket Router", "../x", "router/", "router/latest", "router@", "@champion", "a/1/2", "r" * 300]
)
def test_what_names_no_version(text: str) -> None:
    with pytest.raises(NoSuchVersion, match="names no version; give NAME, NAME@alias"):
        asked(text)
