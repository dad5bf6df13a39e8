"""Finds the model that a manifest names: below a folder first, else where the name itself points. Reads each once."""

from collections.abc import Iterator
from pathlib import Path

from serving.fit.model_files import ModelFiles
from serving.fit.model_reader import ModelUnreadable, read_model
from serving.fit.open_model import Places, open_model


class ModelLookup:
    def __init__(self, root: Path | None, places: Places) -> None:
        """With a `root`, models are looked for there only, so the answer is the same without a network."""
        self._root, self._places = root, places
        self._known: dict[str, ModelFiles] = {}

    def find(self, source: str) -> ModelFiles:
        """`source`: an id, a path or a URI. Raises ModelUnreadable, ConfigInvalid, HeaderInvalid."""
        if source not in self._known:
            self._known[source] = read_model(open_model(self._place(source), self._places))
        return self._known[source]

    def _place(self, source: str) -> str:
        if self._root is None:
            return source
        for name in _names(source):
            for path in (self._root / name, self._root / f"{name}.json"):
                if path.exists():
                    return str(path)
        raise ModelUnreadable(
            f"{source[:100]!r} is not below {self._root.name} as {', '.join(_names(source))}; required: its folder, or "
            "its config.json under that name. Put it there."
        )


def _names(source: str) -> tuple[str, ...]:
    """Qwen/Qwen3-4B → Qwen/Qwen3-4B, Qwen--Qwen3-4B, Qwen__Qwen3-4B, Qwen3-4B; of a URI, without scheme and digest."""
    return tuple(dict.fromkeys(_spellings(source.rpartition("://")[2].partition("@")[0])))


def _spellings(path: str) -> Iterator[str]:
    parts = [part for part in path.split("/") if part not in ("", ".", "..")]
    parts = [*parts[:-1], parts[-1].partition(":")[0]] if parts else ["model"]
    yield "/".join(parts)
    yield "--".join(parts[-2:])
    yield "__".join(parts[-2:])
    yield parts[-1]
