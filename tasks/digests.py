"""The two digests that evidence is made of: of values, and of an adapter's files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

ADAPTER_FILES = ("adapter_model.safetensors", "adapter_config.json")


def digest_of(*parts: Any) -> str:
    """sha256 of the parts as canonical JSON; paths and other values by their text."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def adapter_sha256(folder: Path) -> str:
    """Over the two files that are the adapter."""
    digest = hashlib.sha256()
    for name in ADAPTER_FILES:
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()
