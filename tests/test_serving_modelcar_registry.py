"""The registry client against real docker-registries: TLS with an own authority, user lists, bearer tokens, mounts."""

import base64
import json
import os
import stat
from pathlib import Path

import pytest

from serving.modelcar import (
    Access,
    DigestMismatch,
    ImageMissing,
    RegistryFailed,
    model_layers,
    open_store,
    parse_reference,
    push_image,
)
from serving.modelcar.credentials import CredentialsInvalid, parse_challenge, read_credentials
from serving.modelcar.pull import pull
from serving.modelcar.registry import Registry
from tests.fix_guarded_registry import PASSWORD, USER, Certificate, TokenServer
from tests.fix_modelcar import make_base

pytest_plugins = ("tests.fix_registry",)

AUTH = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


def auth_file(folder: Path, host: str, entry: dict[str, str]) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps({"auths": {host: entry}}))
    return path


def access(folder: Path, host: str, certificate: Certificate, auth: str = AUTH) -> Access:
    return Access(auth_file(folder, host, {"auth": auth}), certificate.certificate_file)


def test_a_user_list_and_tls(tmp_path: Path, basic_registry: str, certificate: Certificate, repository: str) -> None:
    reference = parse_reference(f"{basic_registry}/{repository}:v1")
    base = make_base(tmp_path / "base")
    with open_store(reference, access(tmp_path, basic_registry, certificate)) as store:
        digest = push_image(model_layers(base, None, None), {}, store, "v1").digest
        assert pull(store, digest, tmp_path / "pulled").digest == digest
    assert (tmp_path / "pulled" / "config.json").read_bytes() == (base / "config.json").read_bytes()


@pytest.mark.parametrize("auth", [None, base64.b64encode(b"robot:wrong").decode()])
def test_without_the_right_password_there_is_one_clear_error(
    tmp_path: Path, basic_registry: str, certificate: Certificate, repository: str, auth: str | None
) -> None:
    file = auth_file(tmp_path, basic_registry, {"auth": auth}) if auth else None
    reference = parse_reference(f"{basic_registry}/{repository}:v1")
    with (
        open_store(reference, Access(file, certificate.certificate_file)) as store,
        pytest.raises(RegistryFailed, match=r"status 401.*--auth-file") as caught,
    ):
        push_image(model_layers(make_base(tmp_path / "base"), None, None), {}, store, "v1")
    assert "wrong" not in str(caught.value)


def test_an_unknown_authority_is_refused_at_once(tmp_path: Path, basic_registry: str, repository: str) -> None:
    sleeps: list[float] = []
    reference = parse_reference(f"https://{basic_registry}/{repository}")
    with (
        Registry(reference, Access(), sleeps.append) as store,
        pytest.raises(RegistryFailed, match=r"certificate.*--ca-file"),
    ):
        store.get_manifest("v1")
    assert sleeps == []
    (tmp_path / "empty.pem").write_text("no certificate")
    for path in (tmp_path / "empty.pem", tmp_path / "absent.pem"):
        with pytest.raises(CredentialsInvalid, match="cannot be used as authorities"):
            open_store(reference, Access(ca_file=path))


def test_bearer_tokens_are_fetched_kept_and_scoped(
    tmp_path: Path, token_registry: tuple[str, TokenServer], certificate: Certificate, repository: str
) -> None:
    host, server = token_registry
    server.asked.clear()
    layers = model_layers(make_base(tmp_path / "base"), None, None)
    allowed = access(tmp_path, host, certificate)
    with open_store(parse_reference(f"{host}/{repository}"), allowed) as store:
        push_image(layers, {}, store, "v1", streams=1)
    assert 2 <= len(server.asked) <= 4  # one to read, one to write, however many blobs there are
    assert all(f"repository:{repository}:" in scope for scopes in server.asked for scope in scopes)
    with open_store(parse_reference(f"{host}/{repository}-next"), allowed) as store:
        result = push_image(layers, {}, store, "v1", mount_from=[repository])
    assert result.blobs_mounted == 3
    with open_store(parse_reference(f"{host}/{repository}"), allowed) as store:
        assert store.tags() == ("v1",)
        assert len(pull(store, "v1", tmp_path / "pulled").files) == 8


def test_a_token_that_ran_out_is_asked_for_again(
    tmp_path: Path, token_registry: tuple[str, TokenServer], certificate: Certificate, repository: str
) -> None:
    host, server = token_registry
    server.seconds = -3600  # docker-registry allows a minute of leeway
    try:
        with open_store(parse_reference(f"{host}/{repository}"), access(tmp_path, host, certificate)) as store:
            with pytest.raises(RegistryFailed, match="401"):
                store.put_blob(b"x")
            server.seconds = 300
            assert store.has_blob(store.put_blob(b"x"), 1)
    finally:
        server.seconds = 300


def test_a_token_server_that_refuses_is_named(
    tmp_path: Path, token_registry: tuple[str, TokenServer], certificate: Certificate, repository: str
) -> None:
    host, _ = token_registry
    wrong = access(tmp_path, host, certificate, base64.b64encode(b"robot:wrong").decode())
    with (
        open_store(parse_reference(f"{host}/{repository}"), wrong) as store,
        pytest.raises(RegistryFailed, match=r"token server .* answered 401"),
    ):
        store.put_blob(b"x")


def test_manifests_and_blobs_come_back_or_are_missing(registry: str, repository: str) -> None:
    with open_store(parse_reference(f"{registry}/{repository}")) as store:
        assert store.find_manifest("v1") is None
        with pytest.raises(ImageMissing, match="has no manifest v1"):
            store.get_manifest("v1")
        digest = store.put_blob(b"{}")
        assert store.get_blob(digest, 10) == b"{}"
        with pytest.raises(DigestMismatch, match="over 1 bytes"):
            store.get_blob(digest, 1)
        with pytest.raises(DigestMismatch, match="absent"):
            store.get_blob("sha256:" + "0" * 64, 10)
        assert not store.mount("sha256:" + "0" * 64, "models/absent")
        assert store.tags() == ()


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"auth": AUTH}, (USER, PASSWORD, "")),
        ({"username": "u", "password": "p"}, ("u", "p", "")),
        ({"auth": base64.b64encode(b"u:").decode(), "identitytoken": "t"}, ("u", "", "t")),
    ],
)
def test_the_credential_file_is_read_as_docker_writes_it(
    tmp_path: Path, entry: dict[str, str], expected: tuple[str, str, str]
) -> None:
    for name in ("host:5000", "https://host:5000", "https://host:5000/v1/"):
        found = read_credentials(auth_file(tmp_path, name, entry), "host:5000")
        assert found is not None
        assert (found.username, found.password, found.identity_token) == expected
        assert expected[1] not in repr(found) or not expected[1]
    assert read_credentials(auth_file(tmp_path, "other", entry), "host:5000") is None
    assert read_credentials(None, "host:5000") is None


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"auths": {"h": {"auth": "*"}}}', '{"auths": {"h": {"auth": "YQ=="}}}']
)
def test_a_damaged_credential_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(CredentialsInvalid):
        read_credentials(tmp_path / "config.json", "h")
    with pytest.raises(CredentialsInvalid, match="cannot be read"):
        read_credentials(tmp_path / "absent.json", "h")


def test_a_credential_helper_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper = tmp_path / "docker-credential-fake"
    helper.write_text('#!/bin/sh\nread name\n[ "$name" = h ] || exit 1\necho \'{"Username": "u", "Secret": "s"}\'\n')
    helper.chmod(helper.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "c.json").write_text('{"credsStore": "fake", "credHelpers": {"x": "absent"}}')
    found = read_credentials(tmp_path / "c.json", "h")
    assert found is not None
    assert (found.username, found.password) == ("u", "s")
    assert read_credentials(tmp_path / "c.json", "other") is None
    with pytest.raises(CredentialsInvalid, match="docker-credential-absent"):
        read_credentials(tmp_path / "c.json", "x")


def test_challenges_are_read(tmp_path: Path) -> None:
    found = parse_challenge('Bearer realm="https://a/token",service="r e",scope="repository:x:pull,push"')
    assert found.scheme == "bearer"
    assert found.parameters == {"realm": "https://a/token", "service": "r e", "scope": "repository:x:pull,push"}
    assert parse_challenge("Basic realm=plain").parameters == {"realm": "plain"}
