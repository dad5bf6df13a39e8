"""docs/cluster.md: every folder that is applied renders, every file and setting that is named exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.fix_deploy import rendered

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "cluster.md").read_text()


@pytest.mark.parametrize("folder", sorted(set(re.findall(r"-k (deploy/[\w/-]+)", TEXT))))
def test_a_folder_that_is_applied_renders(folder: str) -> None:
    assert rendered(ROOT / folder)


@pytest.mark.parametrize("name", sorted(set(re.findall(r"\bdeploy/[\w/.-]*\w", TEXT))))
def test_what_is_named_is_there(name: str) -> None:
    assert (ROOT / name).exists()


@pytest.mark.parametrize("setting", sorted(set(re.findall(r"\bLIFTLOCK_[A-Z_]+\b", TEXT))))
def test_a_setting_exists(setting: str) -> None:
    from tasks.settings import Settings

    assert setting.removeprefix("LIFTLOCK_").lower() in Settings.model_fields
