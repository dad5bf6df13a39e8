"""Which texts name an image, and what they name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.modelcar import ReferenceInvalid, parse_reference

D = "sha256:" + "a1" * 32


@pytest.mark.parametrize(
    ("text", "host", "repository", "tag", "digest"),
    [
        ("registry.example.com/models/router:v1", "registry.example.com", "models/router", "v1", None),
        ("127.0.0.1:5055/x", "127.0.0.1:5055", "x", None, None),
        (f"localhost/a/b@{D}", "localhost", "a/b", None, D),
        (f"https://h/a:v1@{D}", "h", "a", "v1", D),
        ("[::1]:5000/a:v", "[::1]:5000", "a", "v", None),
    ],
)
def test_registries(text: str, host: str, repository: str, tag: str | None, digest: str | None) -> None:
    found = parse_reference(text)
    assert (found.host, found.repository, found.tag, found.digest, found.is_layout) == (
        host,
        repository,
        tag,
        digest,
        False,
    )
    assert found.wanted == (digest or tag or "latest")
    assert found.pinned(D) == f"{host}/{repository}@{D}"


@pytest.mark.parametrize(
    ("text", "folder", "tag", "digest"),
    [
        ("oci:cars:v1", "cars", "v1", None),
        ("oci:/a/b", "/a/b", None, None),
        (f"oci:a b/c@{D}", "a b/c", None, D),
        ("oci:./x:y/z", "x:y/z", None, None),
    ],
)
def test_layout_folders(text: str, folder: str, tag: str | None, digest: str | None) -> None:
    found = parse_reference(text)
    assert (found.is_layout, found.folder, found.tag, found.digest) == (True, folder, tag, digest)


@pytest.mark.parametrize(
    "text",
    [
        "", "router", "router:v1", "models/router", "h.x/", "h.x/Router", "h.x/a/../b", "h.x//a", "h.x/a:", "h.x/a:.v", "h.x/a:v/../../b",
        "h.x/a@sha256:12", f"h.x/a@{D.upper()}", "ftp://h/a", "http:///a", "h.x:port/a", "oci:", f"h.x/a:{'v' * 129}", "user@h.x/a", "h.x/a b",
    ],
)  # fmt: skip
def test_what_no_registry_takes_is_refused(text: str) -> None:
    with pytest.raises(ReferenceInvalid):
        parse_reference(text)


@given(st.text(max_size=60))
def test_any_text_is_refused_or_read_back_the_same(text: str) -> None:
    try:
        found = parse_reference(text)
    except ReferenceInvalid:
        return
    again = parse_reference(str(found))
    assert (again.name, again.tag, again.digest) == (found.name, found.tag, found.digest)
    assert ".." not in found.repository
