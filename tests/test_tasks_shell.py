"""Whether a release's image has the shell is decided by its spec alone; a file with other bytes is never taken."""

from __future__ import annotations

from pathlib import Path

from serving.modelcar.shell import SHA256
from tasks.settings import Settings
from tasks.shell import present_shell, shell_of, toolchain_shell
from tasks.spec import ModelcarSpec, load_release
from tests.fix_stack import SUITE


def test_the_local_target_needs_no_shell(tmp_path: Path) -> None:
    spec = load_release(SUITE / "release.yaml")
    assert spec.delivery.target == "local"
    assert shell_of(spec, Settings(toolchain=tmp_path)) is None
    assert (
        shell_of(spec.model_copy(update={"modelcar": ModelcarSpec(shell=False)}), Settings(toolchain=tmp_path)) is None
    )


def test_other_bytes_are_no_shell(tmp_path: Path) -> None:
    settings = Settings(toolchain=tmp_path)
    toolchain_shell(settings).parent.mkdir()
    toolchain_shell(settings).write_bytes(b"\x7fELF another one")
    found = present_shell(settings)
    assert found != toolchain_shell(settings)
    if found is not None:  # the system's own, which must be the pinned one
        import hashlib

        assert hashlib.sha256(found.read_bytes()).hexdigest() == SHA256
