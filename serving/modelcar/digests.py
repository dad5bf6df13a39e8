"""Remembers layer digests by the files they came from, so that unchanged weights are not read again.

The key holds path, size, mtime and inode of every file. A file that was touched in the last moments is not remembered:
a change within the clock's grain would go unseen (Git's "racy" index entries, technical/racy-git).
"""

import hashlib
import json
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from serving.modelcar.blobs import locked
from serving.modelcar.layer import Layer
from serving.modelcar.reference import DIGEST

GRAIN_NANOSECONDS = 2_000_000_000
MAX_ENTRIES = 4096


class DigestCache:
    """One JSON file, shared by processes: read at the start, merged at `save`. A damaged file is an empty one."""

    def __init__(self, path: Path | None, now_ns: Callable[[], int] = time.time_ns) -> None:
        """Without a path nothing is remembered."""
        self._path = path
        self._now_ns = now_ns
        self._entries = _read(path) if path else {}
        self._added: dict[str, str] = {}

    def fill(self, layer: Layer) -> str:
        """The layer's digest, from the cache or by reading its files."""
        key = _key(layer)
        if layer.known_digest is None:
            layer.known_digest = self._entries.get(key)
        if layer.known_digest is None:
            began = self._now_ns()
            if layer.digest and all(file.mtime_ns < began - GRAIN_NANOSECONDS for file in layer.sources):
                self._added[key] = layer.digest
        return layer.digest

    def save(self) -> None:
        """Keeps the newest MAX_ENTRIES; does nothing where nothing was added."""
        if self._path is None or not self._added:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with locked(self._path.with_name(f".{self._path.name}.lock")):
            merged = list((_read(self._path) | self._added).items())[-MAX_ENTRIES:]
            temporary = self._path.with_name(f".{self._path.name}.{secrets.token_hex(8)}")
            try:
                temporary.write_text(json.dumps(dict(merged), indent=0))
                temporary.replace(self._path)
            finally:
                temporary.unlink(missing_ok=True)
        self._added.clear()


def _key(layer: Layer) -> str:
    """Member headers stand for names and for how the tar is made."""
    hasher = hashlib.sha256()
    for member in layer.members:
        hasher.update(member.header)
        hasher.update(member.data or b"")
        if member.source:
            file = member.source
            hasher.update(os.fsencode(file.path) + f"\0{file.size}\0{file.mtime_ns}\0{file.inode}\0".encode())
    return hasher.hexdigest()


def _read(path: Path) -> dict[str, str]:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    entries = value.items() if isinstance(value, dict) else ()
    return {key: digest for key, digest in entries if isinstance(digest, str) and DIGEST.fullmatch(digest)}
