"""Signed images for tests: two of one base in a layout folder, with provenance and verdict; and the cosign program.

cosign is Debian's; `python -m tests.bench.oracles` installs it beside the checkout's other tools.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from serving.modelcar import ImageStore, open_store, parse_reference
from serving.modelcar.attest import (
    PROVENANCE,
    VERDICT,
    Material,
    Provenance,
    Verdict,
    provenance_predicate,
    verdict_predicate,
)
from serving.modelcar.keys import PrivateKey, new_key
from serving.modelcar.sign import Signed, sign
from serving.modelcar.verify import RELEASE, verify
from tests.fix_modelcar import build

PEERS = Path(__file__).parent.parent / ".toolchain" / "peers-signing" / "bin"
IDENTITY = "registry.example.com/models/router"
PREDICATES = {
    PROVENANCE: provenance_predicate(
        Provenance(
            builder="https://example.com/liftlock",
            builder_version="0.1.0",
            invocation="run-1",
            materials=(
                Material("dataset", "sha256", "a" * 64),
                Material("code", "gitCommit", "c" * 40, "git+https://e.x/r"),
            ),
            parameters={"r": 8},
        )
    ),
    VERDICT: verdict_predicate(Verdict("passed", {"eval report": "b" * 64}, ("exact_match not worse",), ())),
}


Refusal = type[Exception]


@dataclass(frozen=True)
class SignedLayout:
    """`signed` is of the tag `router-1`, `other` of `router-2`, by the same key."""

    folder: Path
    key: PrivateKey
    signed: Signed
    other: Signed

    def open(self) -> ImageStore:
        return open_store(parse_reference(f"oci:{self.folder}"))

    def moved(self, folder: Path) -> "SignedLayout":
        """A copy that may be changed; blobs are links until then."""
        shutil.copytree(self.folder, folder, copy_function=os.link)
        return SignedLayout(folder, self.key, self.signed, self.other)


def check_refused(layout: SignedLayout, refused: Refusal | tuple[Refusal, ...]) -> bool:
    """Whether a release's verification of `router-1`, by tag and digest, ends in that error, with words to act on."""
    reference = parse_reference(f"oci:{layout.folder}:router-1@{layout.signed.digest}")
    with layout.open() as store, pytest.raises(refused) as caught:
        verify(reference, layout.key.public, store, required=RELEASE)
    return len(str(caught.value)) > 40  # what, observed, next step


def overwrite(path: Path, data: bytes) -> None:
    path.unlink()  # it is a link to the template's
    path.write_bytes(data)


def sign_two(root: Path, key: PrivateKey, predicates: dict[str, dict[str, Any]]) -> SignedLayout:
    signed = []
    for number in (1, 2):
        layout, image = build(root, tag=f"router-{number}", scale=float(number))
        with open_store(parse_reference(f"oci:{layout}")) as store:
            signed.append(sign(store, image.digest, key, IDENTITY, predicates=predicates))
    return SignedLayout(layout, key, signed[0], signed[1])


@pytest.fixture(scope="session")
def signed_layout(tmp_path_factory: pytest.TempPathFactory) -> SignedLayout:
    """Read only: tests take `moved` copies."""
    return sign_two(tmp_path_factory.mktemp("signed"), new_key(), PREDICATES)


def need_peer(program: str) -> str:
    """Its path, on PATH or where `tests.bench.oracles` puts it; skips the test where it is absent."""
    found = shutil.which(program, path=os.pathsep.join((os.environ.get("PATH", ""), str(PEERS))))
    if found is None:
        pytest.skip(f"{program} is not installed: python -m tests.bench.oracles")
    return found


@pytest.fixture(scope="session")
def cosign() -> str:
    return need_peer("cosign")


@pytest.fixture(scope="session")
def model_signing() -> str:
    return need_peer("model_signing")
