"""The gateway's Lua as text. `front` reads ids, key and model name; REWRITE puts the engine's name into the body."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from serving.gateway.keys import Key

_FOLDER = Path(__file__).parent
_SHA256, _MODEL_NAME, _FRONT, REWRITE, _FALLBACK, _MIRROR = (
    (_FOLDER / f"{name}.lua").read_text() for name in ("sha256", "model_name", "front", "rewrite", "fallback", "mirror")
)

NOTHING = "function envoy_on_request(handle) end"


def fallback(models: Sequence[str]) -> str:
    """The program of a chain: `models` are the names that the second, third … attempt is asked as."""
    names = ", ".join(f'"{model}"' for model in models)
    return "\n".join([f"local NAMES = {{{names}}}", _MODEL_NAME, _FALLBACK])


def mirror(model: str) -> str:
    """The program of a shadow, which is asked as `model`."""
    return "\n".join([f'local NAME = "{model}"', _MODEL_NAME, _MIRROR])


def front(paths: Sequence[str], keys: Sequence[Key] | None) -> str:
    """The first filter's program. `keys` None: nobody is asked for one; an empty sequence: nobody is let in."""
    head = [
        f"local REQUIRED = {'false' if keys is None else 'true'}",
        f"local PATHS = {_table(dict.fromkeys(paths, 'true'))}",
        f"local KEYS = {_table({key.sha256: _client(key) for key in keys or ()})}",
    ]
    return "\n".join([*head, _SHA256, _MODEL_NAME, _FRONT])


def _client(key: Key) -> str:
    models = "nil" if key.models is None else _table(dict.fromkeys(key.models, "true"))
    return f'{{name = "{key.client}", models = {models}}}'


def _table(entries: Mapping[str, str]) -> str:
    """Of keys that hold no quote, backslash or control character: paths, digests and model names, which are all checked."""
    return "{" + ", ".join(f'["{key}"] = {value}' for key, value in sorted(entries.items())) + "}"
