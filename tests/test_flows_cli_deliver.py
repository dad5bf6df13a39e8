"""`liftlock deliver` as a user runs it: versions in a real MLflow, the platform's repository behind a git daemon."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.fix_platform import PlatformRepository, git

pytestmark = pytest.mark.slow  # each command imports MLflow's client
GATEWAY = {"LIFTLOCK_CLUSTER_GATEWAY_URL": "http://127.0.0.1:9"}


def test_a_dry_run_prints_the_first_commit_and_pushes_nothing(
    released: Any, registered: str, platform_repository: PlatformRepository
) -> None:
    before = git(platform_repository.bare, "rev-parse", "main")
    settings = {"LIFTLOCK_PLATFORM_REPOSITORY": platform_repository.url, **GATEWAY}
    done = released("deliver", "release.yaml", "--dry-run", **settings)
    assert done.returncode == 0, done.stderr
    assert f"+++ b/serving/liftlock/{registered}/route.yaml" in done.stdout
    assert f"+    name: {registered}-v4" in done.stdout or f"{registered}-v4" in done.stdout
    assert git(platform_repository.bare, "rev-parse", "main") == before
    document = json.loads(released("deliver", "release.yaml", "--dry-run", "--json", **settings).stdout)
    assert document["target"] == "gitops" and document["diff"] == done.stdout


def test_what_is_missing_is_named_before_anything_is_done(released: Any, tmp_path: Path) -> None:
    unset = released("deliver", "release.yaml", "--dry-run")
    assert unset.returncode == 2 and "LIFTLOCK_CLUSTER_GATEWAY_URL" in unset.stderr
    nowhere = released("deliver", "release.yaml", "--dry-run", **GATEWAY)
    assert nowhere.returncode == 2 and "LIFTLOCK_PLATFORM_REPOSITORY" in nowhere.stderr
    settings = {"LIFTLOCK_PLATFORM_REPOSITORY": str(tmp_path / "none.git"), **GATEWAY}
    absent = released("deliver", "release.yaml", "--dry-run", **settings)
    assert absent.returncode == 2 and "cannot read branch main" in absent.stderr
    assert "Traceback" not in absent.stderr + nowhere.stderr + unset.stderr


def test_a_local_target_and_an_unknown_version_are_bad_input(released: Any, tmp_path: Path) -> None:
    spec = tmp_path / "release.yaml"
    spec.write_text(spec.read_text().replace("target: gitops", "target: local"))
    local = released("deliver", "release.yaml", "--dry-run", **GATEWAY)
    assert local.returncode == 2 and "--target gitops or kubernetes" in local.stderr
    unknown = released("deliver", "release.yaml", "--target", "gitops", "--version", "77", "--dry-run", **GATEWAY)
    assert unknown.returncode == 2 and "77" in unknown.stderr
