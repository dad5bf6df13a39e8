"""Which files of a model folder go into a modelcar, and which folders are refused.

It reads names, sizes, safetensors headers and config files. It never loads a model and does not scan for secrets.
"""

import json
import os
import re
import stat
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.modelcar.weights import safetensors_problem

PICKLES = frozenset(
    {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".dill", ".npy", ".npz", ".h5", ".keras", ".mar"}
)
CODE = frozenset({".py", ".pyc", ".pyd", ".pyx", ".so", ".dll", ".dylib", ".exe", ".sh"})
# What a file begins with, whatever it is called: pickle protocols 2 to 5, zip (what torch.save writes), ELF, a script.
_PICKLE_PROTOCOLS = frozenset({2, 3, 4, 5})
_MAGIC = ((b"PK\x03\x04", "a zip archive"), (b"\x7fELF", "a program"), (b"#!", "a script"))
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors", "README.md")
ADAPTERS_FOLDER = "adapters"
MAX_CONFIG_BYTES = 16 << 20
_ADAPTER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class ModelRefused(ValueError):
    """The folder must not become an image as it is; the message says which file and what to do. A retry is useless."""


@dataclass(frozen=True)
class SourceFile:
    """A regular file: its name in the model, where its bytes are, and the stat that tells whether they changed."""

    name: str
    path: Path
    size: int
    mtime_ns: int
    inode: int


def base_files(base: Path) -> tuple[SourceFile, ...]:
    """The files of a base model, sorted by name; hidden files and folders are left out. Raises ModelRefused."""
    root = _folder(base, "base model")
    files = tuple(sorted(_walk(root), key=lambda file: file.name))
    _refuse_collisions(file.name for file in files)
    for file in files:
        _check_content(file)
    names = {file.name for file in files}
    if "config.json" not in names:
        raise ModelRefused(f"{base} has no config.json; vLLM needs one; name the folder that holds the base model")
    if not any(name.endswith(".safetensors") for name in names):
        raise ModelRefused(
            f"{base} has no *.safetensors file; a modelcar needs one; convert the weights to safetensors"
        )
    _refuse_missing_shards(base, root, names)
    return files


def adapter_files(adapter: Path) -> tuple[SourceFile, ...]:
    """The adapter's weights, config and card. All else, such as a trainer's checkpoints, is not read."""
    root = _folder(adapter, "adapter")
    files = tuple(_source_file(root, root / name) for name in ADAPTER_FILES if os.path.lexists(root / name))
    missing = {"adapter_config.json", "adapter_model.safetensors"} - {file.name for file in files}
    if missing:
        raise ModelRefused(
            f"{adapter} has no {' and no '.join(sorted(missing))}; a LoRA adapter needs both; "
            "save it with PEFT's save_pretrained(safe_serialization=True)"
        )
    for file in files:
        _check_content(file)
    return files


def check_adapter_name(name: str) -> None:
    """Raises ModelRefused unless the name is one safe path component."""
    if not _ADAPTER_NAME.fullmatch(name) or ".." in name:
        raise ModelRefused(
            f"the adapter name {name!r} cannot be a folder name; use 1 to 128 of the characters A-Z a-z 0-9 . _ -, "
            "a letter or digit first and no '..'"
        )


def check_member_name(name: str) -> None:
    """Raises ModelRefused for a relative path that could escape, hide or read differently on another machine."""
    odd = any(unicodedata.category(char) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for char in name)
    if odd or "\\" in name or any(part == "" or ".." in part or part == "." for part in name.split("/")):
        raise ModelRefused(f"the file name {name!r} holds '..', a backslash or an invisible character; rename the file")
    if unicodedata.normalize("NFC", name) != name:
        raise ModelRefused(f"the file name {name!r} is not in Unicode form NFC; rename the file")


def _folder(folder: Path, what: str) -> Path:
    if not folder.is_dir():
        raise ModelRefused(f"the {what} {folder} is not a folder; name a folder that holds the model's files")
    return folder.resolve()


def _walk(root: Path) -> Iterator[SourceFile]:
    for where, folders, names in os.walk(root, onerror=_raise):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in folders:
            if (Path(where) / name).is_symlink():
                raise ModelRefused(
                    f"{Path(where) / name} is a link to a folder; a model holds plain folders; copy it here"
                )
        for name in sorted(names):
            if not name.startswith("."):
                yield _source_file(root, Path(where) / name)


def _raise(error: OSError) -> None:
    raise ModelRefused(f"{error.filename} cannot be listed ({error.strerror}); make it readable") from error


def _source_file(root: Path, path: Path) -> SourceFile:
    name = path.relative_to(root).as_posix()
    check_member_name(name)
    try:
        target = _follow(root, path)
        info = target.stat()
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of symlinks
        raise ModelRefused(f"{path} cannot be read ({error}); restore the file or remove the link") from error
    if not stat.S_ISREG(info.st_mode):
        raise ModelRefused(f"{path} is no regular file; a model holds only files and folders; remove it")
    if not os.access(target, os.R_OK):
        raise ModelRefused(f"{path} may not be read by this user; make it readable")
    return SourceFile(name, target, info.st_size, info.st_mtime_ns, info.st_ino)


def _follow(root: Path, path: Path) -> Path:
    """The file behind a link: inside the folder, or a blob of the Hugging Face cache whose snapshot the folder is."""
    target = path.resolve(strict=True)
    blobs = root.parent.parent / "blobs" if root.parent.name == "snapshots" else None
    if target.is_relative_to(root) or target.parent == blobs:
        return target
    raise ModelRefused(
        f"{path} is a link to {target}, outside the folder; only a Hugging Face snapshot may link out, "
        "to its blobs folder; copy the file here"
    )


def _refuse_collisions(names: Iterable[str]) -> None:
    seen: dict[str, str] = {}
    for name in names:
        parts = name.split("/")
        for depth in range(1, len(parts) + 1):
            path = "/".join(parts[:depth])
            other = seen.setdefault(path.casefold(), path)
            if other != path:
                raise ModelRefused(f"{other} and {path} are one name where case does not count; rename one")


def _check_content(file: SourceFile) -> None:
    suffix = Path(file.name).suffix.lower()
    refuse_suffix(file.name)
    if file.name.split("/")[0].casefold() == ADAPTERS_FOLDER:
        raise ModelRefused(f"{file.name} lies where adapters are placed; a base model has no such folder; move it out")
    if suffix == ".safetensors":
        _check_weights(file)
    else:
        _check_magic(file)
    if file.name.endswith("config.json"):
        _check_config(file)


def refuse_suffix(name: str) -> None:
    """Raises ModelRefused for a name that says pickle or code."""
    suffix = Path(name).suffix.lower()
    if suffix in PICKLES:
        raise ModelRefused(
            f"{name} is a {suffix} file, a format that can run code when it is loaded; "
            "a modelcar takes weights as safetensors only; convert or remove it"
        )
    if suffix in CODE:
        kind = "Python code" if suffix.startswith(".py") else f"a {suffix} file, which is code"
        raise ModelRefused(f"{name} is {kind}; a modelcar holds none; use an architecture that vLLM has built in")


def _check_magic(file: SourceFile) -> None:
    with file.path.open("rb") as opened:
        head = opened.read(4)
    found = next((kind for magic, kind in _MAGIC if head.startswith(magic)), None)
    if found is None and head[:1] == b"\x80" and set(head[1:2]) & _PICKLE_PROTOCOLS:
        found = "a pickle"
    if found:
        raise ModelRefused(f"{file.name} begins like {found}, whatever its name; a modelcar holds none; remove it")


def _check_weights(file: SourceFile) -> None:
    problem = safetensors_problem(file.path, file.size)
    if problem:
        raise ModelRefused(f"{file.name} {problem}; it is damaged or incomplete; download or save it again")


def _check_config(file: SourceFile) -> None:
    if _has_key(_json_object(file), "auto_map"):
        raise ModelRefused(
            f"{file.name} has auto_map, which makes transformers run code from elsewhere; "
            "remove the key and use an architecture that vLLM has built in"
        )


def _json_object(file: SourceFile) -> dict[str, Any]:
    if file.size > MAX_CONFIG_BYTES:
        raise ModelRefused(
            f"{file.name} has {file.size} bytes; a config has at most {MAX_CONFIG_BYTES}; restore the file"
        )
    try:
        value = json.loads(file.path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ModelRefused(f"{file.name} is not JSON ({error}); restore the file") from error
    if not isinstance(value, dict):
        raise ModelRefused(f"{file.name} is not a JSON object; restore the file")
    return value


def _has_key(value: Any, key: str) -> bool:
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            if key in item:
                return True
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)
    return False


def _refuse_missing_shards(base: Path, root: Path, names: set[str]) -> None:
    index = "model.safetensors.index.json"
    if index not in names:
        return
    weight_map = _json_object(_source_file(root, root / index)).get("weight_map")
    shards = {str(shard) for shard in weight_map.values()} if isinstance(weight_map, dict) else set()
    missing = sorted(shards - names)
    if missing:
        raise ModelRefused(f"{base} lacks {', '.join(missing)} that its {index} names; download the model again")
