"""A base model and a LoRA adapter as the layers, config and manifest of a runnable OCI image ("modelcar").

The image's digest is a function of the model's bytes and names alone: tar headers carry no time, owner or mode of the
machine that builds, and the JSON is canonical. Layers are streams over the model's own files; nothing is written here.

Kubernetes image volumes and KServe's `oci+fetch://` need nothing but the model; KServe's modelcar sidecar (`oci://`) runs
`sh` and `ln` inside the image, which the shell layer (shell.py) gives it. There is no entry point: KServe's arguments
are the command. Layers are not compressed: weights hardly shrink, and `oci+fetch://` refuses zstd. Member names start
with `models/`, which it requires.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from serving.modelcar.layer import Layer
from serving.modelcar.shell import shell_layer
from serving.modelcar.source import (
    ADAPTERS_FOLDER,
    ModelRefused,
    adapter_files,
    base_files,
    check_adapter_name,
)

ROOT = "models"
SMALL_FILES_TITLE = "model-files"
TITLE_ANNOTATION = "org.opencontainers.image.title"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
EPOCH = "1970-01-01T00:00:00Z"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NOBODY = "65534:65534"


def model_layers(
    base: Path, adapter: Path | None, adapter_name: str | None, shell: Path | None = None
) -> tuple[Layer, ...]:
    """The shell layer where a busybox is given, one layer for each weight file of the base, one for its small files, one
    for the adapter; the same base gives the same first layers with every adapter, so a registry stores them once.

    Raises ModelRefused, ShellMissing.
    """
    files = {f"{ROOT}/{file.name}": file for file in base_files(base)}
    weights = [name for name in files if name.endswith(".safetensors")]
    layers = [shell_layer(shell)] if shell else []
    layers += [Layer(files[name].name, {name: files[name]}) for name in weights]
    layers.append(Layer(SMALL_FILES_TITLE, {name: file for name, file in files.items() if name not in weights}))
    if adapter is None and adapter_name is None:
        return tuple(layers)
    if adapter is None or adapter_name is None:
        raise ModelRefused(f"got adapter {adapter} under the name {adapter_name}; give both or neither")
    check_adapter_name(adapter_name)
    title = adapter_title(adapter_name)
    return (*layers, Layer(title, {f"{ROOT}/{title}/{file.name}": file for file in adapter_files(adapter)}))


def adapter_title(adapter_name: str) -> str:
    """The adapter layer's title, which is also its folder below `models/`."""
    return f"{ADAPTERS_FOLDER}/{adapter_name}"


def manifest(layers: Sequence[Layer], annotations: Mapping[str, str]) -> tuple[bytes, bytes]:
    """The image config and the manifest as canonical JSON. What is in `annotations` becomes part of the digest, so
    nothing that differs from build to build (a time, a host, a run id) belongs there: attest that instead.
    """
    config = canonical_json(
        {
            "architecture": "amd64",
            "os": "linux",
            "created": EPOCH,
            "config": {"Env": [f"PATH={PATH}"], "User": NOBODY, "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": [layer.digest for layer in layers]},
            "history": [{"created": EPOCH, "created_by": f"liftlock: {layer.title}"} for layer in layers],
        }
    )
    descriptors = [
        descriptor(LAYER_TYPE, layer.digest, layer.size) | {"annotations": {TITLE_ANNOTATION: layer.title}}
        for layer in layers
    ]
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": descriptor(CONFIG_TYPE, sha256_digest(config), len(config)),
        "layers": descriptors,
    }
    if annotations:
        document["annotations"] = dict(annotations)
    return config, canonical_json(document)


def descriptor(media_type: str, digest: str, size: int) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest, "size": size}


def canonical_json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def sha256_digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
