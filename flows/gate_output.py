"""A gated change in every form that was asked for: text or JSON on standard output, JUnit XML, Markdown and HTML in files.

Files appear whole or not at all. Parents are looked at before anything is asked, so that a long run is not lost to a typo.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import typer

from evals.gate_junit import to_junit
from evals.gate_markdown import to_markdown
from evals.gate_sentences import text_lines
from evals.gated import GatedChange, document


@dataclass(frozen=True)
class Wanted:
    """None: not wanted."""

    as_json: bool = False
    junit: Path | None = None
    markdown: Path | None = None
    html: Path | None = None

    def check(self) -> None:
        """Raises typer.BadParameter."""
        for option, path in (("--junit", self.junit), ("--markdown", self.markdown), ("--html", self.html)):
            if path and (path.is_dir() or not path.absolute().parent.is_dir()):
                observed = "is a folder" if path.is_dir() else "lies in a folder that does not exist"
                raise typer.BadParameter(
                    f"{option} {path} {observed}; give the path of a file in a folder that is there"
                )


def tell(change: GatedChange, wanted: Wanted) -> None:
    """Write the files, then print."""
    write_files(change, wanted)
    typer.echo(json.dumps(document(change), indent=2) if wanted.as_json else "\n".join(text_lines(change)))


def write_files(change: GatedChange, wanted: Wanted) -> None:
    if wanted.junit:
        _write(wanted.junit, to_junit(change))
    if wanted.markdown:
        _write(wanted.markdown, to_markdown(change))
    if wanted.html:
        from tasks.gate_page import render_gate

        _write(wanted.html, render_gate(change))


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_bytes(text.encode("utf-8", "replace"))  # an answer may hold half a character
    temporary.replace(path)
