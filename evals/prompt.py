"""The prompt of a suite: one file that lm-eval, promptfoo and the training data all render the same way.

A prompt is an optional system message and one user message in which `{{column}}` stands for a column of the item.
Nothing else of a template language is read, because lm-eval renders Jinja, promptfoo Nunjucks, and they differ.
It does not apply a chat template: the tokenizer (lm-eval) or the engine (promptfoo) does.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from evals.nesting import too_deep

PLACEHOLDER = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_]*)\s*\}\}")
TEMPLATE_MARK = re.compile(r"\{\{|\}\}|\{%|%\}|\{#|#\}")

Message = dict[str, str]


class PromptInvalid(Exception):
    """The prompt file, or an item that should fill it, has to be mended by its author."""


@dataclass(frozen=True)
class Prompt:
    """`user` holds at least one placeholder, `system` holds none."""

    system: str | None
    user: str

    def __post_init__(self) -> None:
        if not PLACEHOLDER.search(self.user):
            raise PromptInvalid(f"the user prompt {self.user!r} has no placeholder; write one, such as {{{{ticket}}}}")
        for name, text in (("user", PLACEHOLDER.sub("", self.user)), ("system", self.system or "")):
            if mark := TEMPLATE_MARK.search(text):
                raise PromptInvalid(
                    f"the {name} prompt holds {mark.group()!r}; only {{{{column}}}} in the user prompt is read, "
                    "because lm-eval and promptfoo render other template code differently"
                )

    @property
    def sha256(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


def messages(prompt: Prompt, item: Mapping[str, object]) -> tuple[Message, ...]:
    """The chat messages that ask for one item. PromptInvalid where the item lacks a column."""

    def column(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in item:
            raise PromptInvalid(f"the prompt asks for the column {name!r}; the item has {', '.join(sorted(item))}")
        return str(item[name])

    user = Message(role="user", content=PLACEHOLDER.sub(column, prompt.user))
    return (Message(role="system", content=prompt.system), user) if prompt.system else (user,)


def parse_prompt(text: str, source: str) -> Prompt:
    """`source` names the file in the error."""
    if too_deep(text):
        raise PromptInvalid(f"{source} is nested too deeply; it needs exactly the keys system and user")
    try:
        found = YAML(typ="safe").load(text)
    except (YAMLError, ValueError, RecursionError) as error:  # ValueError: a date or number that is none
        raise PromptInvalid(f"{source} is not YAML: {error}") from error
    if not isinstance(found, dict) or set(found) != {"system", "user"}:
        keys = ", ".join(map(str, found)) if isinstance(found, dict) else type(found).__name__
        raise PromptInvalid(f"{source} has {keys or 'no keys'}; it needs exactly the keys system and user")
    system, user = found["system"], found["user"]
    if not isinstance(user, str) or not (system is None or (isinstance(system, str) and system)):
        raise PromptInvalid(f"{source}: user must be text; system must be text or null")
    return Prompt(system, user)


def load_prompt(path: Path) -> Prompt:
    try:
        return parse_prompt(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise PromptInvalid(f"cannot read the prompt {path}: {error.strerror}; a suite needs a prompt.yaml") from error
    except UnicodeDecodeError as error:
        raise PromptInvalid(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from None
