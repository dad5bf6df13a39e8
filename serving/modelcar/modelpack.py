"""A CNCF ModelPack artifact (model-spec, docs/spec.md) over the blobs of an image: other manifest, same bytes.

Runtimes that mount artifacts, and model registries, read it; containerd and KServe read the image. The shell is left
out. Blobs are shared, so the artifact costs a registry its config and manifest only.
"""

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from serving.modelcar.image import (
    MANIFEST_TYPE,
    ROOT,
    SMALL_FILES_TITLE,
    TITLE_ANNOTATION,
    canonical_json,
    descriptor,
    sha256_digest,
)
from serving.modelcar.layer import Layer
from serving.modelcar.shell import TITLE as SHELL_TITLE

ARTIFACT_TYPE = "application/vnd.cncf.model.manifest.v1+json"
CONFIG_TYPE = "application/vnd.cncf.model.config.v1+json"
WEIGHT_TYPE = "application/vnd.cncf.model.weight.v1.tar"
WEIGHT_CONFIG_TYPE = "application/vnd.cncf.model.weight.config.v1.tar"
_FILE_PATH = "org.cncf.model.filepath"


def modelpack(layers: Sequence[Layer], name: str, annotations: Mapping[str, str]) -> tuple[bytes, bytes]:
    """The artifact's config and manifest as canonical JSON; `name` is the model's name."""
    packed = [layer for layer in layers if layer.title != SHELL_TITLE]
    config = canonical_json(
        {
            "descriptor": {"name": name},
            "config": {"format": "safetensors"},
            "modelfs": {"type": "layers", "diffIds": [layer.digest for layer in packed]},
        }
    )
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "artifactType": ARTIFACT_TYPE,
        "config": descriptor(CONFIG_TYPE, sha256_digest(config), len(config)),
        "layers": [_descriptor(layer) for layer in packed],
    }
    if annotations:
        document["annotations"] = dict(annotations)
    return config, canonical_json(document)


def _descriptor(layer: Layer) -> dict[str, Any]:
    kind = WEIGHT_CONFIG_TYPE if layer.title == SMALL_FILES_TITLE else WEIGHT_TYPE
    path = str(PurePosixPath(ROOT) / layer.title) if kind == WEIGHT_TYPE else ROOT
    return descriptor(kind, layer.digest, layer.size) | {
        "annotations": {TITLE_ANNOTATION: layer.title, _FILE_PATH: path}
    }
