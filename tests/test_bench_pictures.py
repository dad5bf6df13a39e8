"""`make pictures` and docs/pictures.md: every picture is drawn, none is wider than its window, and the page shows each."""

from __future__ import annotations

import re
import shutil
import struct
from pathlib import Path

import pytest

from tests.bench.pictures import IMAGES, ROOT, SCHEMES, TERMINAL, WIDTHS, report, shots, terminal
from tests.test_rag_page import BROWSERS, browsing

PAGES = ("report-page", "question-page")
DRAWN = {f"{page}-{width}-{scheme}.png" for page in PAGES for width in WIDTHS for scheme in SCHEMES}
DRAWN |= {f"terminal-{name}-{scheme}.svg" for name in TERMINAL for scheme in SCHEMES}
needs_chromium = pytest.mark.skipif(not any(map(shutil.which, BROWSERS)), reason="no Chromium on PATH")


def test_the_page_shows_each_picture_and_each_is_there() -> None:
    shown = set(re.findall(r"\(images/([^)]+)\)", (ROOT / "docs" / "pictures.md").read_text()))
    assert shown == DRAWN
    assert {file.name for file in IMAGES.iterdir()} >= DRAWN


@pytest.mark.slow
@needs_chromium
def test_the_report_is_drawn_at_each_width_and_is_not_wider(tmp_path: Path) -> None:
    assert report(tmp_path) == []
    for width in WIDTHS:
        for scheme in SCHEMES:
            data = (tmp_path / f"report-page-{width}-{scheme}.png").read_bytes()
            assert struct.unpack(">I", data[16:20]) == (width,)


@pytest.mark.slow
@needs_chromium
def test_a_page_that_is_wider_is_told(tmp_path: Path) -> None:
    page = tmp_path / "wide.html"
    page.write_text("<!doctype html><div style=width:800px>wide</div>")
    with browsing(tmp_path, page.as_uri()) as browser:
        browser.wait_for("document.readyState === 'complete'")
        told = shots(browser, "wide", tmp_path)
    assert [line[:20] for line in told] == ["wide at 390 pixels i"] * 2


@pytest.mark.slow
def test_a_terminal_view_has_the_commands_words(tmp_path: Path) -> None:
    assert terminal(tmp_path) == []
    drawn = (tmp_path / "terminal-help-light.svg").read_text()
    assert "dataset&#160;to&#160;served&#160;champion" in drawn
    assert 'url("http' not in drawn
