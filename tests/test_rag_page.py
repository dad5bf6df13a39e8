"""The page in headless Chromium: typed, answered, opened at the place, by the keyboard alone; skipped without Chromium.

The browser is driven by its own DevTools protocol over a WebSocket, so nothing is installed for it.
"""

import base64
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import ClientConnection, connect

from tests.test_rag_api import Scene, scene

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SHOTS = os.environ.get("LIFTLOCK_TEST_SCREENSHOTS")  # a folder to look at, where it is set
WAIT_SECONDS = 120


class Browser:
    """One page of a headless browser."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket, self.number = socket, 0
        self.faults: list[str] = []
        for domain in ("Page", "Runtime", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> Any:
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": params}))
        while True:
            message = json.loads(self.socket.recv(timeout=WAIT_SECONDS))
            if message.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
                self.faults.append(json.dumps(message["params"]))
            if message.get("id") == self.number:
                assert "error" not in message, message
                return message["result"]

    def ask(self, expression: str) -> Any:
        return self.send("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def wait_for(self, expression: str) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while not self.ask(expression):
            assert time.monotonic() < deadline, f"never true: {expression}; {self.ask('document.body.innerText')}"
            time.sleep(0.05)

    def type(self, text: str) -> None:
        self.send("Input.insertText", text=text)

    def press(self, key: str, code: int) -> None:
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **text)

    def resize(self, width: int) -> None:
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)

    def shoot(self, name: str) -> None:
        if SHOTS:
            data = self.send("Page.captureScreenshot", format="png")["data"]
            (Path(SHOTS) / f"{name}.png").write_bytes(base64.b64decode(data))


@contextmanager
def browsing(folder: Path, url: str) -> Iterator[Browser]:
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is on PATH")
    argv = [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            f"--user-data-dir={folder}", "--remote-debugging-port=0", "about:blank"]  # fmt: skip
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log)
    try:
        port = _port(folder / "DevToolsActivePort", process)
        target = httpx.put(f"http://127.0.0.1:{port}/json/new?{url}", timeout=30).json()
        with connect(target["webSocketDebuggerUrl"], max_size=None) as socket:
            yield Browser(socket)
    finally:
        process.terminate()
        process.wait(20)


def _port(file: Path, process: subprocess.Popen[bytes]) -> int:
    deadline = time.monotonic() + 60
    while not (file.is_file() and file.read_text()):
        assert process.poll() is None and time.monotonic() < deadline, "the browser did not start"
        time.sleep(0.05)
    return int(file.read_text().split()[0])


@pytest.fixture
def asked(database: str, tmp_path: Path) -> Iterator[tuple[Browser, Scene]]:
    with scene(database) as api, browsing(tmp_path, str(api.client.base_url)) as browser:
        browser.wait_for("document.readyState === 'complete' && document.title === 'Ask the documents'")
        yield browser, api


def test_a_question_is_asked_and_its_source_opened_by_the_keyboard_alone(asked: tuple[Browser, Scene]) -> None:
    browser, api = asked
    browser.resize(1280)
    assert browser.ask("document.activeElement.id") == "question"
    browser.type("liftlock rollback undoes a release with one command?")
    browser.press("Enter", 13)
    browser.wait_for("document.querySelectorAll('.answer a').length === 1")
    assert browser.ask("document.querySelector('.answer').innerText") == "liftlock rollback NAME undoes a release [1]."
    assert browser.ask("document.querySelector('.answer code').innerText") == "liftlock rollback NAME"
    assert browser.ask("document.activeElement.id") == "question"
    sources = browser.ask("[...document.querySelectorAll('li')].map(item => item.className)")
    assert sources[0] == "cited" and len(sources) == 3
    head = browser.ask("document.querySelector('summary').innerText")
    assert re.search(r"^\[1\] docs/rollback\.md › Rollback line 1 · similarity 0\.\d\d · score 0\.\d\d\d\d$", head)
    browser.shoot("answered-1280")
    for _ in range(2):  # the button, then the link in the answer
        browser.press("Tab", 9)
    assert browser.ask("document.activeElement.className + document.activeElement.tagName") == "A"
    browser.press("Enter", 13)
    browser.wait_for("document.querySelector('details').open")
    browser.wait_for("document.querySelectorAll('details[open] mark').length > 0")
    assert "undoes a release" in browser.ask("document.querySelector('mark').innerText")
    browser.press("/", 191)
    assert browser.ask("document.activeElement.id + document.activeElement.value") == "question"
    browser.shoot("opened-1280")
    assert len(api.model.requests) == 1 and browser.faults == []


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_wider_than_the_window(asked: tuple[Browser, Scene], width: int) -> None:
    browser, _ = asked
    browser.resize(width)
    browser.type("x" * 300 + " liftlock rollback release")
    browser.press("Enter", 13)
    browser.wait_for("document.querySelectorAll('li').length > 0 && !document.querySelector('.waiting')")
    browser.ask("document.querySelectorAll('details').forEach(one => { one.open = true })")
    assert browser.ask("document.documentElement.scrollWidth") <= width
    browser.shoot(f"wide-{width}")


def test_text_of_documents_and_questions_never_becomes_markup(database: str, tmp_path: Path) -> None:
    attack = "<img src=x onerror=document.title='owned'><script>document.title='owned'</script>"
    with (
        scene(
            database, texts={"evil.md": f"# Rollback {attack}\n\nliftlock rollback undoes {attack} a release."}
        ) as api,
        browsing(tmp_path, str(api.client.base_url)) as browser,
    ):
        browser.wait_for("document.title === 'Ask the documents'")
        browser.type(f"rollback undoes a release? {attack}")
        browser.press("Enter", 13)
        browser.wait_for("document.querySelectorAll('li').length > 0 && !document.querySelector('.waiting')")
        assert browser.ask("document.querySelectorAll('img, article script').length") == 0
        assert browser.ask("document.title") == "Ask the documents"


def test_what_went_wrong_is_shown(database: str, tmp_path: Path) -> None:
    with scene(database, indexed=False) as api, browsing(tmp_path, str(api.client.base_url)) as browser:
        browser.wait_for("document.title === 'Ask the documents'")
        browser.type("Anything?")
        browser.press("Enter", 13)
        browser.wait_for("!!document.querySelector('.note')")
        assert "has no index" in browser.ask("document.querySelector('.note').innerText")
        assert browser.ask("document.getElementById('send').disabled") is False
        assert browser.ask("document.querySelector('h3')") is None  # no empty list of sources
