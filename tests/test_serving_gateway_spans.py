"""Spans go to an OTLP endpoint over HTTP where one is set, with the ids that engine and client see."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.fix_engine import BASE, FakeEngine
from tests.fix_envoy import running_envoy
from tests.test_serving_gateway_duties import logged

CHAT = "/v1/chat/completions"


@contextmanager
def collector() -> Iterator[tuple[str, list[Span]]]:
    """A small OTLP receiver: its address, and the spans that came."""
    spans: list[Span] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sent = ExportTraceServiceRequest.FromString(b"".join(self._chunks()))
            assert self.path == "/v1/traces"
            spans.extend(span for one in sent.resource_spans for scope in one.scope_spans for span in scope.spans)
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def _chunks(self) -> Iterator[bytes]:
            """Envoy sends the spans in chunks, without a length."""
            while size := int(self.rfile.readline(), 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", spans
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_requests_spans_carry_its_trace(engine: FakeEngine, tmp_path: Path) -> None:
    with collector() as (url, spans), running_envoy(tmp_path, engine.url, otlp_url=url) as envoy:
        engine.forget()
        parent, other = f"00-{'ab' * 16}-{'cd' * 8}-01", httpx.post(f"{envoy.url}{CHAT}", json={"model": BASE})
        answer = httpx.post(f"{envoy.url}{CHAT}", json={"model": BASE}, headers={"traceparent": parent})
        traces = {bytes.fromhex(one.headers["traceparent"][3:35]) for one in engine.asked}
        assert bytes.fromhex("ab" * 16) in traces
        deadline = time.monotonic() + 20
        while not traces <= {span.trace_id for span in spans} and time.monotonic() < deadline:
            time.sleep(0.1)
        assert traces <= {span.trace_id for span in spans}
        first = next(span for span in spans if span.parent_span_id == bytes.fromhex("cd" * 8))
        assert first.trace_id == bytes.fromhex("ab" * 16)
        assert logged(envoy, answer.headers["x-request-id"])["traceparent"][3:35] == "ab" * 16
        assert other.headers["traceparent"][3:35] == engine.asked[0].headers["traceparent"][3:35]
        assert answer.headers["traceparent"] == engine.asked[1].headers["traceparent"] != parent


def test_a_collector_that_is_down_costs_no_request(engine: FakeEngine, tmp_path: Path) -> None:
    with running_envoy(tmp_path, engine.url, otlp_url="http://127.0.0.1:1") as envoy:
        assert [httpx.post(f"{envoy.url}{CHAT}", json={"model": BASE}).status_code for _ in range(5)] == [200] * 5
