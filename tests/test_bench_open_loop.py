"""The benches' clients time the first token, not the headers: a server that sends its headers at once and tokens on request."""

import asyncio
import json
import math
from pathlib import Path

from tests.bench.open_loop import Body, Clients
from tests.bench.rollout_load import read

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\nx-liftlock-version: v1\r\n\r\n"
LATE, GAP = 0.3, 0.1


def event(delta: dict[str, str]) -> bytes:
    return f"data: {json.dumps({'choices': [{'delta': delta}]})}\n\n".encode()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


async def asked(tokens: list[str]) -> Clients:
    """One request of a server whose headers and role come at once, and each token LATE or GAP later."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD + chunk(event({"role": "assistant", "content": ""})))
        await writer.drain()
        for number, token in enumerate(tokens):
            await asyncio.sleep(GAP if number else LATE)
            data = event({"content": token})
            writer.write(chunk(data[:20]) + chunk(data[20:]))
        writer.write(chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        clients = Clients("127.0.0.1", server.sockets[0].getsockname()[1], "tickets")
        await clients.ask(1)
    return clients


def test_the_first_token_is_the_first_event_with_content_not_the_headers() -> None:
    ((_, first, between, whole, version, fault),) = asyncio.run(asked(["word ", '"quoted"', "end"])).rows
    assert (version, fault) == ("v1", "")
    assert first >= LATE
    assert between > 0
    assert whole >= first + 2 * between


def test_an_answer_without_content_has_no_token_times_and_is_no_fault() -> None:
    ((_, first, between, _, _, fault),) = asyncio.run(asked([])).rows
    assert math.isnan(first)
    assert math.isnan(between)
    assert fault == ""


def test_each_event_counts_once_however_it_is_cut() -> None:
    body, data = Body(), event({"content": ""}) + event({"content": "a"}) * 2 + event({"content": "b"})
    for place in range(len(data)):
        body.take(data[place : place + 1])
    assert len(body.times) == 3
    whole = Body()
    whole.take(data)
    assert len(whole.times) == 3
    assert whole.between() == 0


def test_the_file_of_requests_is_read_as_it_was_written(tmp_path: Path) -> None:
    (tmp_path / "requests.csv").write_text("1.000000,nan,nan,0.500000,v1,''\n2.0,0.1,0.02,0.5,v2,'HTTP/1.1 503 x'\n")
    empty, failed = read(tmp_path)
    assert math.isnan(empty.first)
    assert (empty.fault, failed.first, failed.between, failed.whole) == ("", 0.1, 0.02, 0.5)
    assert (failed.version, failed.fault) == ("v2", "HTTP/1.1 503 x")
