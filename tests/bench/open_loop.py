"""Clients that send at random times of a fixed mean rate whatever comes back, in a process of their own. Not a test.

    python -m tests.bench.open_loop HOST PORT MODEL RATE FOLDER

Until its standard input closes. Every LONG_EVERYth request asks for a long stream. Writes FOLDER/requests.csv: start by the monotonic
clock, seconds to the first token, mean seconds between tokens, seconds in all, version, fault. A token is an event with content; headers
and an event of the role alone are none, because engines send them at once. Times that an answer does not have are nan.
A fault is any answer but a whole stream with status 200.
FOLDER/left-out.txt has the number of requests that were due and not sent, see MOST_RUNNING. With the rate "most" WORKERS ask one
after the other for MEASURED_SECONDS, and it prints the requests a second that were answered.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from math import nan
from pathlib import Path
from random import Random

LONG_EVERY = 25
MOST_RUNNING = (
    256  # where the machine stands still, no more are sent: a gateway without room would refuse them, release or not
)
PATIENCE_SECONDS = 30
WORKERS, MEASURED_SECONDS = 16, 6
VERSION = b"x-liftlock-version: "
TOKEN = re.compile(rb'"content":\s*"[^"]')
Row = tuple[float, float, float, float, str, str]
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class Body:
    """What has come of one body. `times` has the clock of each token."""

    data: bytearray = field(default_factory=bytearray)
    times: list[float] = field(default_factory=list)
    _looked: int = 0

    def take(self, chunk: bytes) -> None:
        """An event may come in several chunks, and a chunk may hold several events."""
        self.data += chunk
        end = self.data.rfind(b"\n\n")
        if end > self._looked:
            self.times += [time.monotonic()] * len(TOKEN.findall(self.data, self._looked, end))
            self._looked = end

    def first(self, began: float) -> float:
        return self.times[0] - began if self.times else nan

    def between(self) -> float:
        """Mean seconds between tokens."""
        return (self.times[-1] - self.times[0]) / (len(self.times) - 1) if len(self.times) > 1 else nan


class Clients:
    """Connections are kept and used again, as clients' pools do."""

    def __init__(self, host: str, port: int, model: str) -> None:
        self.host, self.port = host, port
        self.idle: deque[Connection] = deque()
        self.rows: list[Row] = []
        self.bodies = [self._request(model, text) for text in ("a ticket", "a long ticket")]

    def _request(self, model: str, text: str) -> bytes:
        asked = {"model": model, "stream": True, "max_tokens": 8, "messages": [{"role": "user", "content": text}]}
        body = json.dumps(asked).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: {self.host}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        return head.encode() + body

    async def ask(self, number: int) -> None:
        began, version, fault, body = time.monotonic(), "", "", Body()
        connection: Connection | None = None
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                connection = self.idle.popleft() if self.idle else await asyncio.open_connection(self.host, self.port)
                reader, writer = connection
                writer.write(self.bodies[number % LONG_EVERY == 0])
                head = await reader.readuntil(b"\r\n\r\n")
                version = head.partition(VERSION)[2].partition(b"\r\n")[0].decode()
                await self._read(head, reader, body)
            if b" 200 " not in head.split(b"\r\n", 1)[0]:
                fault = head.split(b"\r\n", 1)[0].decode() + " " + body.data[:120].decode(errors="replace")
            elif b"data: [DONE]" not in body.data or b'data: {"error"' in body.data:
                fault = "the stream is not whole"
            self.idle.append(connection)
        except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
            fault = f"{type(error).__name__}: {error}"
            if connection:
                connection[1].close()
        self.rows.append((began, body.first(began), body.between(), time.monotonic() - began, version, fault))

    async def _read(self, head: bytes, reader: asyncio.StreamReader, body: Body) -> None:
        lowered = head.lower()
        if b"transfer-encoding: chunked" not in lowered:
            length = lowered.partition(b"content-length: ")[2].partition(b"\r\n")[0]
            body.take(await reader.readexactly(int(length or 0)))
            return
        while size := int(await reader.readuntil(b"\r\n"), 16):
            body.take((await reader.readexactly(size + 2))[:-2])
        await reader.readexactly(2)


async def flow(clients: Clients, rate: float, ended: Callable[[], bool]) -> int:
    """Sends at the clock's times: a slow answer delays no other request. Returns how many were left out for MOST_RUNNING.

    The times are a Poisson process, as of many clients that know nothing of each other: requests meet, release or not.
    """
    due, number, left_out, random = time.monotonic(), 0, 0, Random(1)
    running: set[asyncio.Task[None]] = set()
    while not ended():
        while due <= time.monotonic():
            due += random.expovariate(rate)
            if len(running) >= MOST_RUNNING:
                left_out += 1
                continue
            task = asyncio.create_task(clients.ask(number))
            running.add(task)
            task.add_done_callback(running.discard)
            number += 1
        await asyncio.sleep(min(max(due - time.monotonic(), 0.001), 0.1))
    await asyncio.gather(*running)
    return left_out


async def most(clients: Clients) -> float:
    """Requests a second that are answered whole, as fast as WORKERS can ask; long streams are not among them."""
    began = time.monotonic()

    async def work(place: int) -> None:
        while time.monotonic() < began + MEASURED_SECONDS:
            await clients.ask(1 + place % (LONG_EVERY - 1))

    await asyncio.gather(*(work(place) for place in range(WORKERS)))
    return sum(not row[-1] for row in clients.rows) / (time.monotonic() - began)


async def main(host: str, port: str, model: str, rate: str, folder: str) -> None:
    clients = Clients(host, int(port), model)
    if rate == "most":
        print(f"{await most(clients):.1f}", flush=True)
        return
    closed = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    left_out = await flow(clients, float(rate), closed.done)
    lines = "\n".join(
        f"{began:.6f},{first:.6f},{between:.6f},{whole:.6f},{version},{fault.replace(',', ';')!r}"
        for began, first, between, whole, version, fault in clients.rows
    )
    (Path(folder) / "requests.csv").write_text(lines + "\n")
    (Path(folder) / "left-out.txt").write_text(f"{left_out}\n")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:6]))
