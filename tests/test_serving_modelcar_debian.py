"""A program out of a Debian package: what is said where this machine's apt cannot give it, and that nothing is left behind."""

import shutil
from pathlib import Path

import pytest

from serving.modelcar.debian import KEYRING, MIRROR, PackageMissing, fetch_program


@pytest.mark.parametrize(
    "text",
    [
        "Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm\n",
        "# a comment\ndeb http://mirror.example/debian bookworm main\n",
        "deb [arch=amd64 signed-by=/k.gpg] http://mirror.example/debian bookworm main\n",
    ],
)
def test_the_mirror_is_read_in_both_formats(text: str) -> None:
    found = MIRROR.search(text)
    assert found is not None
    assert found[1] == "http://mirror.example/debian"


def test_a_machine_without_a_mirror_is_told(tmp_path: Path) -> None:
    with pytest.raises(PackageMissing, match="names no Debian mirror"):
        fetch_program("oras", "usr/bin/oras", tmp_path / "bin" / "oras", suite="trixie", sources=[tmp_path / "none"])
    assert list((tmp_path / "bin").iterdir()) == []


@pytest.mark.skipif(not (shutil.which("apt-get") and KEYRING.is_file()), reason="this is no Debian machine")
def test_an_unreachable_mirror_is_told(tmp_path: Path) -> None:
    sources = tmp_path / "debian.sources"
    sources.write_text("URIs: file:///nowhere\n")
    with pytest.raises(PackageMissing, match="apt-get failed: "):
        fetch_program("oras", "usr/bin/oras", tmp_path / "bin" / "oras", suite="trixie", sources=[sources])
    assert list((tmp_path / "bin").iterdir()) == []
