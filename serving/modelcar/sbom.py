"""A bill of materials of an image as a CycloneDX 1.6 ML-BOM: the model, its base, its dataset, and each file.

Pure, and a function of its arguments: the serial number follows from the image's digest, and there is no time in it.
It names no dependencies in software: the image holds none. Source: cyclonedx.org/docs/1.6/json.
"""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from serving.modelcar.content import FileDigest

SBOM = "https://cyclonedx.org/bom"
LICENCES = "org.opencontainers.image.licenses"
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://liftlock.dev/sbom")


def sbom(name: str, digest: str, annotations: Mapping[str, str], files: Sequence[FileDigest]) -> dict[str, Any]:
    """`annotations` are the image manifest's; of them the base, its sha256, the dataset and the licence are used."""
    parts = [part for part in (_base(annotations), _dataset(annotations)) if part]
    parts += [_file(file) for file in sorted(files, key=lambda file: file.name)]
    model = {
        "type": "machine-learning-model",
        "bom-ref": "model",
        "name": name,
        "version": digest,
        "hashes": [_hash(digest.removeprefix("sha256:"))],
    }
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, digest)}",
        "version": 1,
        "metadata": {"component": model | _licences(annotations)},
        "components": parts,
        "dependencies": [{"ref": "model", "dependsOn": [part["bom-ref"] for part in parts]}],
    }


def _base(annotations: Mapping[str, str]) -> dict[str, Any] | None:
    name = annotations.get("dev.liftlock.base-model")
    if not name:
        return None
    revision, sha256 = annotations.get("dev.liftlock.base-revision"), annotations.get("dev.liftlock.base-sha256")
    return (
        {"type": "machine-learning-model", "bom-ref": "base", "name": name}
        | ({"version": revision} if revision else {})
        | ({"hashes": [_hash(sha256)]} if sha256 else {})
    )


def _dataset(annotations: Mapping[str, str]) -> dict[str, Any] | None:
    sha256 = annotations.get("dev.liftlock.dataset-sha256")
    return {"type": "data", "bom-ref": "dataset", "name": "dataset", "hashes": [_hash(sha256)]} if sha256 else None


def _file(file: FileDigest) -> dict[str, Any]:
    return {"type": "file", "bom-ref": f"file:{file.name}", "name": file.name, "hashes": [_hash(file.sha256)]}


def _hash(sha256: str) -> dict[str, str]:
    return {"alg": "SHA-256", "content": sha256.removeprefix("sha256:")}


def _licences(annotations: Mapping[str, str]) -> dict[str, Any]:
    """As a name: model hubs have licences that SPDX's expressions cannot say."""
    licence = annotations.get(LICENCES)
    return {"licenses": [{"license": {"name": licence}}]} if licence else {}
