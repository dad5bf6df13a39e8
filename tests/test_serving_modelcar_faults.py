"""A registry behind a proxy that cuts, stalls, refuses and lies: a push ends right or in one clear error, and no tag
ever names an incomplete image.
"""

import os
import re
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from serving.modelcar import (
    Access,
    DigestMismatch,
    PushResult,
    RegistryFailed,
    model_layers,
    open_store,
    parse_reference,
    push_image,
)
from serving.modelcar.pull import pull
from serving.modelcar.registry import Registry
from tests.fix_faulty_proxy import Fault, FaultyProxy, status
from tests.fix_modelcar import make_adapter, make_base

pytest_plugins = ("tests.fix_registry",)

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
LARGE = 12 << 20  # over RESUMABLE_BYTES, so that it goes in a PATCH


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base with one large shard, and random bytes, so that no other test's blobs are taken for its own."""
    base = make_base(tmp_path_factory.mktemp("faults") / "base")
    header = b'{"big":{"dtype":"U8","shape":[%d],"data_offsets":[0,%d]}}' % (LARGE, LARGE)
    data = struct.pack("<Q", len(header)) + header + os.urandom(LARGE)
    (base / "model-00001-of-00002.safetensors").write_bytes(data)
    return base


@pytest.fixture
def proxy(registry: str) -> Iterator[FaultyProxy]:
    with FaultyProxy(registry) as proxy:
        yield proxy


def send(model: Path, address: str, repository: str, timeout_seconds: float = 30) -> PushResult:
    reference = parse_reference(f"{address}/{repository}:v1")
    with Registry(reference, Access(timeout_seconds=timeout_seconds), lambda seconds: None) as target:
        return push_image(model_layers(model, None, None), {}, target, "v1")


def tagged_image_is_complete(registry: str, repository: str) -> bool:
    """False where there is no tag; fails where the tag's image lacks a blob."""
    url = f"{registry}/v2/{repository}"
    answer = httpx.get(f"{url}/manifests/v1", headers={"Accept": MANIFEST})
    if answer.status_code == 404:
        return False
    manifest = answer.raise_for_status().json()
    for blob in (manifest["config"], *manifest["layers"]):
        head = httpx.head(f"{url}/blobs/{blob['digest']}")
        assert (head.status_code, int(head.headers["content-length"])) == (200, blob["size"])
    return True


PASSING = [
    *(Fault("cut", request) for request in ("HEAD ", "POST ", "PUT .*uploads", "PATCH ", "PUT .*manifests")),
    *(Fault("cut", request, after=999) for request in ("PUT .*uploads", "PATCH ", "PUT .*manifests/v1")),
    Fault("cut", "PATCH ", after=5 << 20),
    Fault("cut", "PATCH ", times=3, after=3 << 20),
    *(
        Fault("answer", request, times=2, answer=status(code))
        for request in ("HEAD ", "POST ", "PUT .*uploads", "PATCH ", "PUT .*manifests")
        for code in (429, 500, 503)
    ),
    Fault("answer", "PATCH ", answer=status(405)),
]


@pytest.mark.parametrize(
    "fault", PASSING, ids=lambda fault: f"{fault.kind}-{fault.request}-{fault.after}-{fault.answer[9:12]}"
)
def test_trouble_that_passes_leaves_the_whole_image(
    model: Path, registry: str, repository: str, proxy: FaultyProxy, fault: Fault
) -> None:
    fault.met = 0
    proxy.faults = [fault]
    result = send(model, proxy.address, repository)
    assert fault.met == fault.times
    assert tagged_image_is_complete(registry, repository)
    assert result.blobs_sent + result.blobs_present == 4


STAYING = [
    *(Fault("cut", request, times=99) for request in ("HEAD ", "POST ", "uploads", "PUT .*manifests")),
    Fault("cut", "PATCH ", times=99, after=1000),
    Fault("answer", "PUT .*manifests/v1", times=99, answer=status(500)),
    *(Fault("answer", "POST ", times=99, answer=status(code)) for code in (400, 401, 403, 429, 500)),
    Fault("answer", "PATCH ", times=99, answer=status(429)),
]


@pytest.mark.parametrize("fault", STAYING, ids=lambda fault: f"{fault.kind}-{fault.request}-{fault.answer[9:12]}")
def test_trouble_that_stays_is_one_error_and_no_tag(
    model: Path, registry: str, repository: str, proxy: FaultyProxy, fault: Fault
) -> None:
    fault.met = 0
    proxy.faults = [fault]
    with pytest.raises(RegistryFailed) as caught:
        send(model, proxy.address, repository)
    assert proxy.address in str(caught.value)
    assert not tagged_image_is_complete(registry, repository)


def test_a_registry_that_stands_still_is_given_up(
    model: Path, registry: str, repository: str, proxy: FaultyProxy
) -> None:
    proxy.faults = [Fault("stall", "PATCH ", after=2 << 20)]
    began = time.monotonic()
    send(model, proxy.address, repository, timeout_seconds=1)
    assert time.monotonic() - began < 20
    assert tagged_image_is_complete(registry, repository)
    proxy.faults = [Fault("stall", "PUT .*manifests/v2", times=99)]
    with (
        Registry(
            parse_reference(f"{proxy.address}/{repository}"), Access(timeout_seconds=0.3), lambda _: None
        ) as target,
        pytest.raises(RegistryFailed, match="timed out, 4 times"),
    ):
        push_image(model_layers(model, None, None), {}, target, "v2")


def test_a_registry_that_dies_is_one_error(model: Path, registry: str, repository: str, proxy: FaultyProxy) -> None:
    proxy.edit = lambda line, head: _die(proxy, head) if line.startswith("PATCH") else head
    with pytest.raises(RegistryFailed, match="4 times"):
        send(model, proxy.address, repository)
    assert not tagged_image_is_complete(registry, repository)


def _die(proxy: FaultyProxy, head: bytes) -> bytes:
    proxy.dead = True
    return head


LIE = b"sha256:" + b"0" * 64


@pytest.mark.parametrize("request_line", ["HEAD ", "PUT .*uploads", "PUT .*manifests"])
def test_a_lie_about_a_digest_is_told(
    model: Path, registry: str, repository: str, proxy: FaultyProxy, request_line: str
) -> None:
    send(model, registry, repository)
    httpx.delete(f"{registry}/v2/{repository}/manifests/{_digest(registry, repository)}").raise_for_status()

    def lie(line: str, head: bytes) -> bytes:
        if not re.search(request_line, line):
            return head
        return re.sub(rb"(?i)(docker-content-digest: )\S+", rb"\g<1>" + LIE, head)

    proxy.edit = lie
    fresh = f"{repository}-fresh" if "uploads" in request_line else repository
    with pytest.raises(RegistryFailed, match=f"as {LIE.decode()}, not sha256:"):
        send(model, proxy.address, fresh)
    assert not tagged_image_is_complete(registry, fresh)


def test_a_registry_that_claims_blobs_it_lacks_gets_no_tag(
    model: Path, registry: str, repository: str, proxy: FaultyProxy
) -> None:
    proxy.faults = [Fault("answer", "HEAD ", times=99, answer=b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")]
    with pytest.raises(RegistryFailed, match=r"status 40[04]"):
        send(model, proxy.address, repository)
    assert not tagged_image_is_complete(registry, repository)


@pytest.mark.parametrize("after", [0, 100, 6 << 20])
def test_a_pull_goes_on_where_the_connection_ended(
    tmp_path: Path, model: Path, registry: str, repository: str, proxy: FaultyProxy, after: int
) -> None:
    send(model, registry, repository)
    cuts = iter([after] * 3)
    proxy.cut_answer = lambda line: next(cuts, None) if "/blobs/" in line else None
    reference = parse_reference(f"{proxy.address}/{repository}:v1")
    with Registry(reference, Access(timeout_seconds=5), lambda seconds: None) as store:
        pull(store, "v1", tmp_path / "model")
    names = sorted(str(path.relative_to(model)) for path in model.rglob("[!.]*.*") if ".cache" not in str(path))
    assert names == sorted(str(path.relative_to(tmp_path / "model")) for path in (tmp_path / "model").rglob("*.*"))
    for name in names:
        assert (tmp_path / "model" / name).read_bytes() == (model / name).read_bytes()
    assert proxy.bytes_down < LARGE + (2 << 20)


def test_a_pull_that_never_ends_leaves_nothing(
    tmp_path: Path, model: Path, registry: str, repository: str, proxy: FaultyProxy
) -> None:
    send(model, registry, repository)
    proxy.cut_answer = lambda line: 0 if "/blobs/" in line else None
    reference = parse_reference(f"{proxy.address}/{repository}:v1")
    with (
        Registry(reference, Access(timeout_seconds=5), lambda seconds: None) as store,
        pytest.raises(RegistryFailed, match="reading blob"),
    ):
        pull(store, "v1", tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_changed_bytes_on_the_way_are_never_placed(
    tmp_path: Path, model: Path, registry: str, repository: str, proxy: FaultyProxy
) -> None:
    send(model, registry, repository)
    reference = parse_reference(f"{proxy.address}/{repository}:v1")
    proxy.flip = True
    with open_store(reference) as store, pytest.raises(DigestMismatch):
        pull(store, "v1", tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_an_adapter_is_sent_alone_when_the_base_is_next_door(
    tmp_path: Path, model: Path, registry: str, repository: str, proxy: FaultyProxy
) -> None:
    send(model, registry, repository)
    adapter = make_adapter(tmp_path / "adapter")
    size = sum(path.stat().st_size for path in adapter.iterdir())
    with open_store(parse_reference(f"{proxy.address}/{repository}-tuned")) as target:
        layers = model_layers(model, adapter, "router")
        result = push_image(layers, {}, target, "v1", mount_from=["models/absent", repository])
    assert (result.blobs_mounted, result.blobs_sent) == (3, 2)
    assert proxy.bytes_up <= size + (64 << 10)
    assert tagged_image_is_complete(registry, f"{repository}-tuned")


def _digest(registry: str, repository: str) -> str:
    answer = httpx.head(f"{registry}/v2/{repository}/manifests/v1", headers={"Accept": MANIFEST})
    return str(answer.headers["docker-content-digest"])
