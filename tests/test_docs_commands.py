"""Every `liftlock` and `make` command that a page or a help text shows is one that the product takes: parsed here, as it stands there.

What a command does is tested beside its code; this holds that no page shows a command, an option or a value that is gone.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from typer.main import get_command

from flows.cli import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
ROOT_COMMAND = get_command(app)
AFTER = {"&&", "||", "|", ">", ">>", ";"}


def leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every command that does something, by the words that call it."""
    for name, below in getattr(command, "commands", {}).items():
        yield from leaves(below, (*path, name))
    if not hasattr(command, "commands"):
        yield " ".join(path), command


LEAVES = dict(leaves(ROOT_COMMAND))


def joined(text: str) -> list[str]:
    """Lines, those that end with a backslash as one with the next."""
    return re.sub(r"\\\n\s*", "", text).splitlines()


def shown(path: Path) -> list[str]:
    """Commands in a page's blocks; decisions.md tells of what was."""
    text, lines, block = path.read_text(), [], False
    for line in joined(text) if path.name != "decisions.md" else ():
        block ^= line.startswith("```")
        if block or line.startswith("    "):
            lines += re.findall(r"(?:^|[ /])(liftlock [a-z-].*)", line.strip())[:1]
    return lines


def mentioned(path: Path) -> set[str]:
    """Commands between backticks in a page's sentences."""
    return set(re.findall(r"`liftlock ([^`\n]+)`", path.read_text())) if path.name != "decisions.md" else set()


def parse(line: str) -> str:
    """The words of the command that click comes to. Raises click.UsageError as the command line would."""
    words = shlex.split(line, comments=True)[1:]
    words = words[: next((at for at, word in enumerate(words) if word in AFTER), len(words))]
    context = ROOT_COMMAND.make_context("liftlock", words)
    while isinstance(context.command, click.Group) or hasattr(context.command, "commands"):
        group: Any = context.command
        rest = [*context._protected_args, *context.args]
        if not rest:
            break
        name, command, rest = group.resolve_command(context, rest)
        context = command.make_context(name, rest, parent=context)
    return context.command_path


@pytest.mark.parametrize(("page", "line"), [(path.name, line) for path in PAGES for line in shown(path)])
def test_a_command_of_a_page_is_taken(page: str, line: str) -> None:
    assert parse(line)


@pytest.mark.parametrize("name", sorted(LEAVES))
def test_a_command_has_an_example_that_is_taken(name: str) -> None:
    examples = re.findall(r"Example: (liftlock .*)", LEAVES[name].help or "")
    assert examples, f"`liftlock {name} --help` shows no example"
    assert all(parse(line) for line in examples)


@pytest.mark.parametrize(("page", "said"), [(path.name, said) for path in PAGES for said in sorted(mentioned(path))])
def test_a_command_that_a_sentence_names_is_there(page: str, said: str) -> None:
    """`a|b` is one or the other; words in capitals stand for something."""
    command, words = ROOT_COMMAND, said.split()
    while hasattr(command, "commands") and words:
        one_of = words[0].rstrip(",").split("|")
        if not set(one_of) <= set(command.commands):
            break
        command = command.commands[one_of[0]]
        words = words[1:]
    assert command is not ROOT_COMMAND or words[0].startswith("--"), said
    options = {word.rstrip("],").lstrip("[").partition("=")[0] for word in words if word.lstrip("[").startswith("-")}
    below = [command, *getattr(command, "commands", {}).values()]
    known = {name for one in below for each in one.params for name in (*each.opts, *each.secondary_opts)}
    assert options <= known | {"--help"}, said


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_a_make_target_that_a_page_names_is_there(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    named = set(re.findall(r"(?:`|^    |^)make ([a-z][a-z-]*)", page.read_text(), re.M))
    elsewhere = (
        {"tf-apply", "root", "bootstrap"} if page.name == "cluster.md" else set()
    )  # the host platform's Makefile
    assert named - elsewhere <= targets | {"bench-"}
