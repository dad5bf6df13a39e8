"""Whether a release's image has the shell is decided by its spec alone; a file with other bytes is never taken."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.modelcar import model_layers
from serving.modelcar.licence import LicenceNotAllowed, licence_of, model_card
from serving.modelcar.shell import SHA256
from tasks.package import check_package
from tasks.settings import Settings
from tasks.shell import present_shell, shell_of, toolchain_shell
from tasks.spec import ModelcarSpec, load_release
from tests.fix_modelcar import make_base
from tests.fix_stack import SUITE


def test_the_local_target_needs_no_shell(tmp_path: Path) -> None:
    spec = load_release(SUITE / "release.yaml")
    assert spec.delivery.target == "local"
    assert shell_of(spec, Settings(toolchain=tmp_path)) is None
    assert (
        shell_of(spec.model_copy(update={"modelcar": ModelcarSpec(shell=False)}), Settings(toolchain=tmp_path)) is None
    )


@pytest.mark.parametrize(("licences", "refused"), [((), False), (("MIT",), False), (("apache-2.0",), True)])
def test_the_licence_is_told_before_anything_starts(tmp_path: Path, licences: tuple[str, ...], refused: bool) -> None:
    base = make_base(tmp_path / "base")
    (base / "README.md").write_text("---\nlicense: mit\n---\n# Base\n")
    spec = load_release(SUITE / "release.yaml").model_copy(update={"modelcar": ModelcarSpec(licences=licences)})
    if refused:
        with pytest.raises(LicenceNotAllowed, match=r"licence is mit; allowed are apache-2\.0"):
            check_package(spec, base, Settings(toolchain=tmp_path))
    else:
        check_package(spec, base, Settings(toolchain=tmp_path))
        assert licence_of(model_card(model_layers(base, None, None))) == "mit"


def test_other_bytes_are_no_shell(tmp_path: Path) -> None:
    settings = Settings(toolchain=tmp_path)
    toolchain_shell(settings).parent.mkdir()
    toolchain_shell(settings).write_bytes(b"\x7fELF another one")
    found = present_shell(settings)
    assert found != toolchain_shell(settings)
    if found is not None:  # the system's own, which must be the pinned one
        import hashlib

        assert hashlib.sha256(found.read_bytes()).hexdigest() == SHA256
