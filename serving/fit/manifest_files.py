"""Kubernetes YAML files of a folder: read, annotated, and written so that the rest of a file stays as it was."""

import io
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import YAMLError

from serving.fit.manifests import ManifestInvalid

SUFFIXES = (".yaml", ".yml", ".json")
NOT_MANIFESTS = ("kustomization.yaml", "kustomization.yml", "Kustomization")


@dataclass(frozen=True)
class ManifestFile:
    """`documents` are ruamel's own objects: changing one and calling write() changes only that place of the file."""

    path: Path
    relative: str
    documents: tuple[Any, ...]
    list_indent: int

    def objects(self) -> Iterator[Any]:
        """Each Kubernetes object, those of a List too. Raises ManifestInvalid."""
        for document in self.documents:
            if document is None:
                continue
            if not isinstance(document, dict) or not isinstance(document.get("kind"), str):
                raise ManifestInvalid(
                    f"{self.relative} holds a document without a kind; required: rendered Kubernetes manifests. "
                    "Name the folder that `kustomize build` or `helm template` wrote to."
                )
            items = document.get("items") if document["kind"].endswith("List") else None
            yield from items if isinstance(items, list) else [document]


def read_manifests(folder: Path) -> tuple[ManifestFile, ...]:
    """Every YAML or JSON file below the folder, in the order of their paths. Raises ManifestInvalid."""
    if not folder.is_dir():
        raise ManifestInvalid(f"{folder} is no folder; required: one with rendered manifests. Check the path.")
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix in SUFFIXES]
    found = tuple(_read(path, folder) for path in paths if path.name not in NOT_MANIFESTS)
    if not found:
        raise ManifestInvalid(f"{folder} holds no .yaml, .yml or .json file; required: rendered manifests.")
    return found


def annotate(document: Any, path: tuple[str, ...], name: str, value: str) -> bool:
    """Sets one annotation; the objects on the way are made where they are absent. Whether anything changed."""
    place = document
    for key in path:
        if not isinstance(place.get(key), dict):
            place[key] = CommentedMap()
        place = place[key]
    changed = place.get(name) != value
    place[name] = value
    return bool(changed)


def remove_annotation(document: Any, path: tuple[str, ...], name: str) -> bool:
    """Whether it was there."""
    place = document
    for key in path:
        place = place.get(key)
        if not isinstance(place, dict):
            return False
    return place.pop(name, None) is not None


def write_manifest(file: ManifestFile, target: Path) -> None:
    """In one step: a reader sees the old file or the new one."""
    yaml = _yaml()
    yaml.indent(mapping=2, sequence=file.list_indent, offset=file.list_indent - 2)
    text = io.StringIO()
    yaml.dump_all(list(file.documents), text)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=target.parent, prefix=f".{target.name}.", delete=False) as temporary:
        temporary.write(text.getvalue())
    if target.exists():
        Path(temporary.name).chmod(target.stat().st_mode)
    Path(temporary.name).replace(target)


def _read(path: Path, folder: Path) -> ManifestFile:
    relative = str(path.relative_to(folder))
    try:
        text = path.read_text(encoding="utf-8")
        documents = tuple(_yaml().load_all(text))
    except (OSError, YAMLError, TypeError, ValueError, RecursionError) as error:  # TypeError: a list as a key
        problem = str(error).strip().splitlines()
        raise ManifestInvalid(
            f"{relative} is no YAML ({problem[0] if problem else type(error).__name__}); required: rendered manifests. "
            "Run `helm template` or `kustomize build` first."
        ) from error
    return ManifestFile(path, relative, documents, _list_indent(text))


def _list_indent(text: str) -> int:
    """Columns from a key to the text of its list's items: kustomize and kubectl write 2, many people 4."""
    lines = text.splitlines()
    for above, below in pairwise(lines):
        indent, item = len(above) - len(above.lstrip()), len(below) - len(below.lstrip())
        if above.rstrip().endswith(":") and below.lstrip().startswith("- ") and 0 <= item - indent <= 8:
            return item - indent + 2
    return 2


def _yaml() -> YAML:
    yaml = YAML(typ="rt")
    yaml.preserve_quotes = True
    yaml.width = 1 << 20  # never break a long line: an annotation is one
    yaml.allow_duplicate_keys = False
    return yaml
