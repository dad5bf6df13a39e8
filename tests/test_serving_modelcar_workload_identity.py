"""The credential helper for Workload Identity, called as a registry client calls it, against a metadata server on loopback."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from serving.modelcar.credentials import CredentialsInvalid, read_credentials
from tests.fix_http import answering, serving_answers
from tests.test_deploy_images import ROOT, scripts

REGISTRY = "us-central1-docker.pkg.dev"


@pytest.fixture
def auth_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The image's helper on the PATH, and the overlay's own config.json."""
    binaries = tmp_path / "bin"
    binaries.mkdir()
    scripts(binaries)
    python = binaries / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    monkeypatch.setenv("PATH", str(binaries), prepend=":")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    text = (ROOT / "deploy" / "overlays" / "gke-l4" / "registry.yaml").read_text()
    file = tmp_path / "config.json"
    file.write_text(text.partition("config.json: '")[2].partition("'")[0])
    return file


def test_a_client_gets_the_accounts_token(auth_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving_answers(answering(200, {"access_token": "ya29.secret", "expires_in": 3599})) as metadata:
        monkeypatch.setenv("GCE_METADATA_HOST", metadata.url.removeprefix("http://"))
        found = read_credentials(auth_file, REGISTRY)
    assert found is not None and (found.username, found.password) == ("oauth2accesstoken", "ya29.secret")
    ((path, headers, _),) = metadata.requests
    assert path == "/computeMetadata/v1/instance/service-accounts/default/token"
    assert headers["metadata-flavor"] == "Google"  # without it the real server refuses


def test_another_registry_gets_nothing(auth_file: Path) -> None:
    assert read_credentials(auth_file, "registry.example.com") is None


@pytest.mark.parametrize("answer", [(404, "no account"), (200, "not json"), (200, {"error": "x"})])
def test_without_a_token_the_reason_is_told(
    auth_file: Path, monkeypatch: pytest.MonkeyPatch, answer: tuple[int, object]
) -> None:
    with serving_answers(answering(*answer)) as metadata:
        monkeypatch.setenv("GCE_METADATA_HOST", metadata.url.removeprefix("http://"))
        with pytest.raises(CredentialsInvalid, match="annotation iam"):
            read_credentials(auth_file, REGISTRY)
