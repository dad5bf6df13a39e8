"""The base model: from a name to a folder, and from a folder to a sha256 over its files."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from tasks.settings import Settings


class BaseModelRefused(Exception):
    """The base model cannot be found or is not safetensors."""


def resolve_base(base_model: str, settings: Settings) -> Path:
    """A folder under the models folder, a path, or a Hugging Face id (downloaded once, safetensors only).

    Raises BaseModelRefused.
    """
    for folder in (settings.models / base_model, Path(base_model).expanduser()):
        if folder.is_dir():
            return _checked(folder.absolute())
    if base_model.count("/") != 1:
        have = ", ".join(_local(settings)) or "none"
        raise BaseModelRefused(
            f"base_model {base_model!r} is neither a folder nor a Hugging Face id (org/name); models here: {have}"
        )
    return _download(base_model, settings)


def _local(settings: Settings) -> list[str]:
    found = (*settings.models.glob("*/config.json"), *settings.models.glob("*/*/config.json"))
    return sorted(str(path.parent.relative_to(settings.models)) for path in found)


def _download(base_model: str, settings: Settings) -> Path:
    """Into org/name below the models folder: another's model of the same name takes nobody's place. Whole, or not there."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    target = settings.models / base_model
    partial = target.with_name(f"{target.name}.partial")
    try:
        snapshot_download(
            base_model,
            local_dir=partial,
            allow_patterns=["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model", "README.md"],
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0][:160]
        raise BaseModelRefused(
            f"base_model {base_model!r} cannot be fetched from the Hugging Face hub: {reason}; check the id, your token and the network"
        ) from None
    return _checked(partial).rename(target)


def _checked(folder: Path) -> Path:
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        raise BaseModelRefused(
            f"{folder} is not a Hugging Face checkpoint with config.json and *.safetensors; Liftlock serves no other format"
        )
    return folder


def folder_sha256(folder: Path, state: Path) -> str:
    """Over names and sha256s of the files that make the model, in name order; digests are remembered by size, time and inode."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    cache_file = state / "digests.json"
    cache: dict[str, str] = json.loads(cache_file.read_text()) if cache_file.exists() else {}
    digests = {path.name: _file_sha256(path, cache) for path in files}
    temporary = cache_file.with_name(f".digests.{os.getpid()}")
    temporary.write_text(json.dumps(cache))
    temporary.replace(cache_file)
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()


def _file_sha256(path: Path, cache: dict[str, str]) -> str:
    stat = path.stat()
    key = f"{path}:{stat.st_size}:{stat.st_mtime_ns}:{stat.st_ino}"
    if key not in cache:
        with path.open("rb") as file:
            cache[key] = hashlib.file_digest(file, "sha256").hexdigest()
    return cache[key]
