"""The bar of a transfer: bytes, rate and time left on a terminal, and nothing at all for what is over at once elsewhere."""

import io
import re
import time

from rich.console import Console

from flows.byte_bar import ByteBar


def test_a_terminal_sees_bytes_and_the_time_left() -> None:
    output = io.StringIO()
    with ByteBar(Console(file=output, force_terminal=True, width=120), "push") as bar:
        for done in range(0, 400_000_001, 40_000_000):
            bar.update(done, 800_000_000)
            time.sleep(0.02)
        time.sleep(0.3)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output.getvalue())
    assert "400.0/800.0 MB" in plain
    assert re.search(r"push .*[MG]B/s 0:00:0\d", plain)


def test_a_log_gets_no_line_for_a_short_transfer() -> None:
    output = io.StringIO()
    with ByteBar(Console(file=output, width=120), "push") as bar:
        bar.update(10, 10)
    assert output.getvalue() == ""
