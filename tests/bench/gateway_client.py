"""Clients that ask one after another on connections of their own, and note first-event and whole times.

`python gateway_client.py PORT CLIENTS SECONDS PAUSE FILE`: FILE is a whole HTTP request; PAUSE in seconds between an answer and the
next request. Prints one JSON object: answers, failures, seconds, and both lists of times in milliseconds.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path


class Client(asyncio.Protocol):
    """`first` and `whole` are shared by all clients. What is not 200, or breaks, is a failure."""

    def __init__(self, request: bytes, pause: float, until: float, first: list[float], whole: list[float]) -> None:
        self.request, self.pause, self.until = request, pause, until
        self.first, self.whole, self.failures = first, whole, 0
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.ask()

    def ask(self) -> None:
        self.got, self.seen = b"", False
        self.began = time.perf_counter()
        if self.began >= self.until:
            self.transport.close()
            return
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.got += data
        if not self.seen and b"data: " in self.got:
            self.seen = True
            self.first.append((time.perf_counter() - self.began) * 1000)
        if not self.got.startswith(b"HTTP/1.1 200"):
            self.failures += 1
            self.transport.close()
        elif self.got.endswith(b"0\r\n\r\n"):
            self.whole.append((time.perf_counter() - self.began) * 1000)
            if self.pause:
                asyncio.get_running_loop().call_later(self.pause, self.ask)
            else:
                self.ask()

    def connection_lost(self, exc: Exception | None) -> None:
        if time.perf_counter() < self.until and not self.failures:
            self.failures += 1
        if not self.done.done():
            self.done.set_result(None)


async def main(port: int, count: int, seconds: float, pause: float, request: bytes) -> None:
    first: list[float] = []
    whole: list[float] = []
    began = time.perf_counter()
    loop = asyncio.get_running_loop()
    clients = []
    for number in range(count):
        await asyncio.sleep(pause / count)  # so that they do not ask in step
        client = Client(request, pause, began + seconds, first, whole)
        await loop.create_connection(lambda client=client: client, "127.0.0.1", port)
        clients.append(client)
        del number
    await asyncio.gather(*(client.done for client in clients))
    took = time.perf_counter() - began
    failures = sum(client.failures for client in clients)
    print(json.dumps({"answers": len(whole), "failures": failures, "seconds": took, "first": first, "whole": whole}))


if __name__ == "__main__":
    port, count, seconds, pause, file = sys.argv[1:]
    arguments = (int(port), int(count), float(seconds), float(pause), Path(file).read_bytes())
    try:
        import uvloop

        uvloop.run(main(*arguments))
    except ImportError:
        asyncio.run(main(*arguments))
