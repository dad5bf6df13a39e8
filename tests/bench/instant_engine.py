"""An engine that answers at once, in a process of its own: what is measured is the gateway and the release. Not a test.

It speaks vLLM's streaming form. A prompt with the word "long" is answered over LONG_SECONDS, so that streams are open across every
change of weight. A model whose name contains "slow-N" takes N milliseconds more to its first token. It prints its port.
"""

from __future__ import annotations

import asyncio
import json
import re

MODEL = re.compile(rb'"model"\s*:\s*"([^"]*)"')
SLOW = re.compile(r"slow-(\d+)")
LENGTH = re.compile(rb"content-length:\s*(\d+)", re.IGNORECASE)
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
LONG_SECONDS, LONG_CHUNKS = 1.5, 10


def event(model: str, delta: dict[str, str], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    data = json.dumps({"id": "x", "object": "chat.completion.chunk", "created": 0, "model": model, "choices": [choice]})
    return chunk(f"data: {data}\n\n".encode())


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            found = LENGTH.search(head)
            body = await reader.readexactly(int(found[1])) if found else b""
            await answer(head, body, writer)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def answer(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
    if b"/completions" not in head.split(b"\r\n", 1)[0]:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
        return
    named = MODEL.search(body)
    model = named[1].decode() if named else ""
    if slow := SLOW.search(model):
        await asyncio.sleep(int(slow[1]) / 1000)
    writer.write(HEAD + event(model, {"role": "assistant", "content": ""}))
    for _ in range(LONG_CHUNKS if b"long" in body else 2):
        if b"long" in body:
            await asyncio.sleep(LONG_SECONDS / LONG_CHUNKS)
        writer.write(event(model, {"content": "word "}))
    writer.write(event(model, {}, "stop") + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")


async def main() -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
