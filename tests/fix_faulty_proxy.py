"""A real TCP proxy between a client and a registry that does what networks and registries do on a bad day.

It passes bytes on by default and counts them. A fault, set by a test, is met at the first request whose beginning
matches, `times` times in all: the connection is cut (at once, or after some of the body), stands still, or gets another
answer. Answers can be changed too: `edit` gets request line and head and gives the head to send, `cut_answer` says after how many bytes of the
body the connection ends, `flip` inverts the first byte of every blob. A dead proxy ends every connection.
"""

import asyncio
import contextlib
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Literal

CHUNK = 1 << 16
Kind = Literal["cut", "stall", "answer"]


@dataclass
class Fault:
    """`request` is searched in the request line, e.g. `PATCH .*uploads`; `after` counts bytes of the request's body.

    `answer` is what is sent instead, head and body; the connection is closed after it.
    """

    kind: Kind
    request: str
    times: int = 1
    after: int = 0
    answer: bytes = b""
    met: int = 0


def status(code: int, head: str = "") -> bytes:
    return f"HTTP/1.1 {code} Trouble\r\n{head}Content-Length: 7\r\nConnection: close\r\n\r\ntrouble".encode()


class FaultyProxy:
    """A context manager; the loop runs in a thread of its own."""

    def __init__(self, upstream: str) -> None:
        host, port = upstream.removeprefix("http://").split(":")
        self._upstream = (host, int(port))
        self.address = ""
        self.bytes_up = 0
        self.bytes_down = 0
        self.faults: list[Fault] = []
        self.edit: Callable[[str, bytes], bytes] = lambda request, head: head
        self.cut_answer: Callable[[str], int | None] = lambda request: None
        self.flip = False
        self.dead = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> "FaultyProxy":
        self._thread.start()
        server = asyncio.run_coroutine_threadsafe(asyncio.start_server(self._serve, "127.0.0.1", 0), self._loop)
        self._server = server.result(10)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _stop(self) -> None:
        self._server.close()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            if not self.dead:
                up_reader, up_writer = await asyncio.open_connection(*self._upstream)
                with contextlib.closing(up_writer):
                    while await self._exchange(reader, writer, up_reader, up_writer):
                        pass
        writer.transport.abort()

    async def _exchange(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        up_reader: asyncio.StreamReader,
        up_writer: asyncio.StreamWriter,
    ) -> bool:
        """One request and its answer; False when the connection is to end."""
        head = await reader.readuntil(b"\r\n\r\n")
        self.bytes_up += len(head)
        line = head.split(b"\r\n", 1)[0].decode()
        fault = self._fault(line)
        if fault and fault.kind == "answer":
            writer.write(fault.answer)
            await writer.drain()
            writer.close()
            return False
        up_writer.write(head)
        left = _length(head)
        allowed = fault.after if fault else left
        while left:
            block = await reader.read(min(CHUNK, left))
            if not block:
                return False
            self.bytes_up += len(block)
            left -= len(block)
            allowed -= len(block)
            if fault and allowed < 0:
                break
            up_writer.write(block)
            await up_writer.drain()
        if fault:
            if fault.kind == "stall":
                await asyncio.sleep(3600)
            return False
        return await self._answer(line, writer, up_reader)

    async def _answer(self, line: str, writer: asyncio.StreamWriter, up_reader: asyncio.StreamReader) -> bool:
        head = await up_reader.readuntil(b"\r\n\r\n")
        left = 0 if line.startswith("HEAD ") else _length(head)
        edited = self.edit(line, head)
        writer.write(edited)
        self.bytes_down += len(edited)
        cut = self.cut_answer(line)
        flip = self.flip and "GET" in line and "/blobs/" in line
        while left:
            block = await up_reader.read(min(CHUNK, left))
            if not block or cut == 0:
                return False
            left -= len(block)
            self.bytes_down += len(block)
            if cut is not None:
                block = block[:cut]
                cut -= len(block)
            writer.write(bytes([block[0] ^ 255]) + block[1:] if flip else block)
            flip = False
            await writer.drain()
            if cut == 0:
                return False
        await writer.drain()
        return not self.dead

    def _fault(self, line: str) -> Fault | None:
        for fault in self.faults:
            if fault.met < fault.times and re.search(fault.request, line):
                fault.met += 1
                return fault
        return None


def _length(head: bytes) -> int:
    found = re.search(rb"\r\ncontent-length:\s*(\d+)", head, re.IGNORECASE)
    return int(found[1]) if found else 0
