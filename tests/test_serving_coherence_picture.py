"""The picture of nested budgets: one bar a hop, to scale, and red where it is not longer than what is behind it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

from serving.coherence.picture import bars, svg, terminal
from tests.fix_coherence import changed, checked, coherent

ROOT = Path(__file__).resolve().parent.parent
SVG = "{http://www.w3.org/2000/svg}"


def test_a_bar_is_as_long_as_its_hop_waits(tmp_path: Path) -> None:
    """900 s of the client, 850 s of the edge, twice 350 s and 3 s of LiteLLM, 350 s, and 84.06 s of the engine."""
    (chain,) = checked(tmp_path, coherent()).chains
    assert [round(each.seconds or 0, 2) for each in bars(chain)] == [900, 850, 703, 350, 84.06]
    rectangles = ElementTree.fromstring(svg([chain])).findall(f"{SVG}rect")[1:]  # noqa: S314 - our own text
    widths = [float(each.get("width") or 0) for each in rectangles]
    assert [round(each / widths[0], 2) for each in widths] == [1.0, 0.94, 0.78, 0.39, 0.09]
    assert not any(each.broken for each in bars(chain))


def test_what_does_not_nest_is_marked(tmp_path: Path) -> None:
    (chain,) = checked(tmp_path, changed(lambda h: h.client.update(total="700s", idle="700s"))).chains
    assert [each.broken for each in bars(chain)] == [True, False, False, False, False]
    assert "#c0392b" in svg([chain]) and " ! " in terminal(chain)[1] and " ! " not in "".join(terminal(chain)[2:])


def test_the_command_draws_it_and_the_page_shows_that_picture(tmp_path: Path) -> None:
    file = tmp_path / "host.svg"
    argv = [sys.executable, "-m", "flows.cli", "coherence", "tests/data/coherence/host", "--picture", str(file)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)
    assert done.returncode == 3 and "qwen-local from Open WebUI" in done.stderr
    assert file.read_text() == (ROOT / "docs" / "images" / "coherence-host.svg").read_text()
    missing = subprocess.run(
        [*argv[:-1], str(tmp_path / "no" / "x.svg")], capture_output=True, text=True, timeout=60, check=False, cwd=ROOT
    )
    assert missing.returncode == 2 and "no such folder" in missing.stderr
