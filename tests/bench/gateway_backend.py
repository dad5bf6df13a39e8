"""An instant engine: reads a request, answers with a stream of eight events at once. uvloop where it is installed.

`python gateway_backend.py` prints its port, then serves until it is ended. It looks at nothing but the body's length.
"""

from __future__ import annotations

import asyncio
import re

LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
EVENTS = 8
EVENT = b'data: {"id":"x","object":"chat.completion.chunk","created":0,"model":"m","choices":[{"index":0,"delta":{"content":"word "}}]}\n\n'
LAST = b'data: {"id":"x","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":8,"total_tokens":17}}\n\ndata: [DONE]\n\n'
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


class Engine(asyncio.Protocol):
    """Keeps the connection open; one request at a time, as Envoy and the client send them."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.head, self.missing = b"", 0

    def data_received(self, data: bytes) -> None:
        if self.missing:
            self.missing -= len(data)
        else:
            self.head += data
            end = self.head.find(b"\r\n\r\n")
            if end < 0:
                return
            length = LENGTH.search(self.head, 0, end)
            self.missing = (int(length.group(1)) if length else 0) - (len(self.head) - end - 4)
            self.head = b""
        if self.missing == 0:
            self.transport.write(HEAD)
            for _ in range(EVENTS):
                self.transport.write(chunk(EVENT))
            self.transport.write(chunk(LAST) + b"0\r\n\r\n")


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Engine, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    try:
        import uvloop

        uvloop.run(main())
    except ImportError:
        asyncio.run(main())
