"""Modelcars in a loopback registry that Kyverno must admit or refuse: signed, unsigned, foreign, tampered, not passed."""

import base64
import json
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from serving.modelcar import ImageStore, copy_image, open_store, parse_reference
from serving.modelcar.attest import VERDICT, Verdict, verdict_predicate
from serving.modelcar.keys import PrivateKey, new_key
from serving.modelcar.sign import sign
from serving.modelcar.signature import tag_of
from tests.fix_modelcar import build
from tests.fix_signing import PREDICATES

FAILED = verdict_predicate(Verdict("rejected", {"eval report": "b" * 64}, (), ("exact_match not worse",)))


@dataclass(frozen=True)
class JudgedImages:
    """`references` by what was done to the image; all are pinned by digest but `tagged`."""

    key: PrivateKey
    references: dict[str, str]


@pytest.fixture(scope="session")
def judged_images(registry: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[JudgedImages]:
    layout, image = build(tmp_path_factory.mktemp("kyverno"), tag="router")
    host, key = registry.removeprefix("http://"), new_key()
    references = {}
    with open_store(parse_reference(f"oci:{layout}")) as source:
        for case, prepare in CASES.items():
            place = parse_reference(f"{host}/liftlock/{case}-{uuid.uuid4().hex[:8]}:v1")
            with open_store(place) as store:
                copy_image(source, image.digest, store, "v1")
                prepare(store, image.digest, key)
            references[case] = place.pinned(image.digest)
    references["tagged"] = references["signed"].partition("@")[0] + ":v1"
    yield JudgedImages(key, references)


def _signed(store: ImageStore, digest: str, key: PrivateKey) -> None:
    sign(store, digest, key, store.name, predicates=PREDICATES)


def _unsigned(store: ImageStore, digest: str, key: PrivateKey) -> None:
    pass


def _foreign(store: ImageStore, digest: str, key: PrivateKey) -> None:
    sign(store, digest, new_key(), store.name, predicates=PREDICATES)


def _rejected(store: ImageStore, digest: str, key: PrivateKey) -> None:
    sign(store, digest, key, store.name, predicates={VERDICT: FAILED})


def _unjudged(store: ImageStore, digest: str, key: PrivateKey) -> None:
    sign(store, digest, key, store.name)


def _payload_changed(store: ImageStore, digest: str, key: PrivateKey) -> None:
    _signed(store, digest, key)
    data = b'{"critical":{}}'
    _edit(store, tag_of(digest, ".sig"), lambda layer: layer.update(digest=store.put_blob(data), size=len(data)))


def _signature_of_another(store: ImageStore, digest: str, key: PrivateKey) -> None:
    """The signature manifest of another image of the same key, under this image's tag."""
    other = json.dumps(store.get_manifest(digest).json() | {"annotations": {"another": "image"}}).encode()
    named = store.put_manifest(other, "other")
    sign(store, named, key, store.name, predicates=PREDICATES, files=())
    store.put_manifest(store.get_manifest(tag_of(named, ".sig")).data, tag_of(digest, ".sig"))
    sign_tag = tag_of(named, ".att")
    store.put_manifest(store.get_manifest(sign_tag).data, tag_of(digest, ".att"))


def _verdict_changed(store: ImageStore, digest: str, key: PrivateKey) -> None:
    """FAILED made to PASSED under the old signature."""
    sign(store, digest, key, store.name, predicates={VERDICT: FAILED})

    def change(layer: dict[str, Any]) -> None:
        if layer["annotations"]["predicateType"] == VERDICT:
            envelope = json.loads(store.get_blob(layer["digest"], 1 << 20))
            statement = base64.b64decode(envelope["payload"]).replace(b'"FAILED"', b'"PASSED"')
            data = json.dumps(envelope | {"payload": base64.b64encode(statement).decode()}).encode()
            layer.update(digest=store.put_blob(data), size=len(data))

    _edit(store, tag_of(digest, ".att"), change)


def _edit(store: ImageStore, tag: str, change: Callable[[dict[str, Any]], None]) -> None:
    document = store.get_manifest(tag).json()
    for layer in document["layers"]:
        change(layer)
    store.put_manifest(json.dumps(document).encode(), tag)


CASES: dict[str, Callable[[ImageStore, str, PrivateKey], None]] = {
    "signed": _signed,
    "unsigned": _unsigned,
    "foreign": _foreign,
    "rejected": _rejected,
    "unjudged": _unjudged,
    "payload-changed": _payload_changed,
    "signature-of-another": _signature_of_another,
    "verdict-changed": _verdict_changed,
}
REFUSED = (*(case for case in CASES if case != "signed"), "tagged")


def values_file(folder: Path, rules: dict[str, str], key: PrivateKey) -> Path:
    """What the ConfigMap holds, for the CLI, which has no cluster; `rules` is the rule's name by policy."""
    policies = [
        {"name": policy, "rules": [{"name": rule, "values": {"trust.data.key": key.public.pem}}]}
        for policy, rule in rules.items()
    ]
    document = {"apiVersion": "cli.kyverno.io/v1alpha1", "kind": "Values", "metadata": {"name": "values"}}
    path = folder / "values.yaml"
    path.write_text(json.dumps(document | {"policies": policies}))
    return path
