"""Rendered manifests as files of a folder, and LiteLLM's values as they are there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from serving.coherence.bounded_yaml import YamlRefused, read_file
from serving.coherence.objects import merge_values
from serving.manifests.model import Desired
from serving.manifests.render import KUSTOMIZATION, LITELLM, render
from tasks.whole_file import write_whole


class OutputTaken(Exception):
    """The folder holds something that was not rendered."""


class ValuesInvalid(Exception):
    """LiteLLM's values cannot be read."""


def write_rendered(desired: Desired, folder: Path) -> list[str]:
    """Paths below `folder`, by name. Files of an earlier rendering that are no longer needed go. Raises OutputTaken."""
    files = render(desired)
    earlier = _earlier(folder)
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        write_whole(folder / path, text)
    for path in earlier - files.keys():
        (folder / path).unlink(missing_ok=True)
        if (folder / path).parent != folder and not any((folder / path).parent.iterdir()):
            (folder / path).parent.rmdir()
    return sorted(files)


def _earlier(folder: Path) -> set[str]:
    """What the last rendering wrote there. Raises OutputTaken."""
    if folder.is_file():
        raise OutputTaken(f"{folder} is a file; name a folder for the kustomization")
    if not folder.is_dir() or not any(folder.iterdir()):
        return set()
    try:
        listed = yaml.safe_load((folder / KUSTOMIZATION).read_text())["resources"]
        return {KUSTOMIZATION, LITELLM, *(path for path in listed if not Path(path).is_absolute() and ".." not in path)}
    except (OSError, KeyError, TypeError, yaml.YAMLError):
        raise OutputTaken(f"{folder} is not empty and holds no kustomization of a model; name another folder") from None


def litellm_entries(paths: Sequence[Path]) -> tuple[Mapping[str, Any], ...]:
    """The model_list that the values make, merged as Helm merges them. Raises ValuesInvalid."""
    merged: dict[str, Any] = {}
    for path in paths:
        try:
            for document in read_file(path, str(path)):
                merged = merge_values(merged, document)
        except (OSError, YamlRefused, AttributeError, TypeError) as error:
            raise ValuesInvalid(f"{path} cannot be read as Helm values: {error}; name LiteLLM's values.yaml") from None
    found = (merged.get("proxy_config") or {}).get("model_list") or []
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise ValuesInvalid("proxy_config.model_list is no list of entries; name LiteLLM's values.yaml")
    return tuple(found)
