"""The command line of a vLLM container as a model and EngineFlags. Pure.

It reads `vllm serve MODEL …`, `python -m vllm.entrypoints.openai.api_server --model …`, flags alone (the image's entry
point runs the server), and a shell line with one of these in it. Kubernetes' $(NAME) is filled from the environment.
"""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from serving.fit.flags import EngineFlags

SHORT = {
    "-tp": "tensor-parallel-size", "-pp": "pipeline-parallel-size", "-q": "quantization", "-dp": "data-parallel-size",
}  # fmt: skip
SWITCHES = {"enforce-eager", "enable-lora", "language-model-only", "enable-expert-parallel"}
INTEGERS = {
    "max-model-len", "max-num-seqs", "max-num-batched-tokens", "max-loras", "max-lora-rank",
    "tensor-parallel-size", "pipeline-parallel-size", "data-parallel-size", "block-size",
}  # fmt: skip
WORDS = {"dtype", "kv-cache-dtype", "quantization"}
# These change what is left for the cache, and the estimate does not model them.
UNMODELLED = (
    "kv-cache-memory-bytes", "num-gpu-blocks-override", "cpu-offload-gb", "speculative-config", "config",
    "hf-overrides", "limit-mm-per-prompt", "kv-transfer-config",
)  # fmt: skip
SUFFIXES = {"k": 10**3, "m": 10**6, "g": 10**9, "K": 2**10, "M": 2**20, "G": 2**30}  # vLLM's human_readable_int
VARIABLE = re.compile(r"\$\(([A-Za-z_][A-Za-z0-9_.-]*)\)")
SHELL_END = re.compile(r"[;&|\n]")


class ArgsInvalid(Exception):
    """vLLM would not understand this command line, or its value is not in the manifest."""


@dataclass(frozen=True)
class VllmArgs:
    model: str | None  # id, path or URI; None: the image or the platform decides
    flags: EngineFlags
    auto_length: bool  # --max-model-len auto or -1: the engine shortens the context without a word
    unmodelled: tuple[str, ...]


def parse_args(argv: Sequence[str], env: Mapping[str, str]) -> VllmArgs:
    """Raises ArgsInvalid, FlagsRefused."""
    words = [VARIABLE.sub(lambda match: env.get(match[1], match[0]), word) for word in _server_words(argv)]
    found, positional = _split(words)
    if "config" in found:
        raise ArgsInvalid(
            f"--config {found['config']} holds flags that are not in the manifest; required: all of them in the "
            "container's args. Write them out."
        )
    length = found.get("max-model-len", "").lower()
    auto = length in ("auto", "-1")
    values = {name: value for name, value in found.items() if not (auto and name == "max-model-len")}
    return VllmArgs(
        model=found.get("model") or (positional[0] if positional else None),
        flags=_flags(values),
        auto_length=auto,
        unmodelled=tuple(sorted(name for name in UNMODELLED if name in found)),
    )


def _server_words(argv: Sequence[str]) -> list[str]:
    """What follows the server's own name."""
    words = list(argv)
    if (
        len(words) >= 3
        and words[0].rpartition("/")[2] in ("sh", "bash")
        and words[1].startswith("-")
        and "c" in words[1]
    ):
        words = _shell_words(words[2])
    for index, word in enumerate(words):
        if word.endswith("vllm") and words[index + 1 : index + 2] == ["serve"]:
            return words[index + 2 :]
        if word.startswith("vllm.entrypoints"):
            return words[index + 1 :]
    return words


def _shell_words(line: str) -> list[str]:
    """The words of the command that starts the server; quotes are kept together."""
    joined = line.replace("\\\n", " ")
    start = max(joined.find("vllm serve"), joined.find("vllm.entrypoints"))
    tail = joined[start:] if start >= 0 else joined
    try:
        return shlex.split(SHELL_END.split(tail, maxsplit=1)[0])
    except ValueError as error:
        raise ArgsInvalid(
            f"The shell line {line[:60]!r} cannot be read ({error}); required: the server's flags as a list in args."
        ) from error


def _split(words: list[str]) -> tuple[dict[str, str], list[str]]:
    """Flags by name (the last one counts, as in argparse) and positional words. A flag without a value has ''."""
    found: dict[str, str] = {}
    positional: list[str] = []
    rest = iter(range(len(words)))
    for index in rest:
        word = words[index]
        name, equals, value = word.partition("=")
        name = SHORT.get(name, name.removeprefix("--").replace("_", "-") if name.startswith("--") else "")
        if not name:
            positional.append(word)
        elif equals or name in SWITCHES or index + 1 == len(words) or _is_flag(words[index + 1]):
            found[name] = value
        else:
            found[name] = words[next(rest)]
    return found, positional


def _is_flag(word: str) -> bool:
    """A word such as --x; -1 is a value."""
    return word in SHORT or (word.startswith("-") and not re.fullmatch(r"-[0-9.]+", word))


def _flags(found: Mapping[str, str]) -> EngineFlags:
    """Raises FlagsRefused."""
    values: dict[str, object] = {}
    for name, text in found.items():
        if name in INTEGERS:
            values[name] = _integer(name, text)
        elif name == "gpu-memory-utilization":
            values[name] = _number(name, text)
        elif name in WORDS:
            values[name] = text
        elif name in SWITCHES:
            values[name] = text.lower() != "false"
    if not values.pop("enable-lora", False):
        values |= {"max-loras": 0}
        values.pop("max-lora-rank", None)
    else:
        values.setdefault("max-loras", 1)
    return EngineFlags(**{name.replace("-", "_"): value for name, value in values.items()})  # type: ignore[arg-type]


def _integer(name: str, text: str) -> int:
    digits, factor = (text[:-1], SUFFIXES[text[-1]]) if text[-1:] in SUFFIXES else (text, 1)
    try:
        return int(float(digits) * factor) if factor > 1 else int(digits)
    except (ValueError, OverflowError) as error:
        raise _invalid(name, text, "a number such as 8192 or 16k") from error


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise _invalid(name, text, "a number such as 0.9") from error


def _invalid(name: str, text: str, required: str) -> ArgsInvalid:
    return ArgsInvalid(f"--{name} is {text[:40]!r}; required: {required}. Write the value into the container's args.")
