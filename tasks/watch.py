"""The part `watch` of the local stack: takes MLflow's webhooks on loopback, and sweeps leases that ran out.

`python -m tasks.watch` reads its port and its secret from the state folder. Both duties have a second net: a webhook that
is missed is found by the reconciler's next minute, a lease by the next sweep.
"""

from __future__ import annotations

import logging
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import psycopg

from tasks.lease import BEAT_SECONDS, crash_flow_run, sweep
from tasks.promotion.database import Connect, connect
from tasks.promotion.events import EventNotSent, PrefectEvents
from tasks.promotion.receive import Receiver
from tasks.promotion.webhook import MAX_BYTES, WebhookRefused
from tasks.settings import get_settings
from tasks.stack.addresses import addresses
from tasks.stack.kept_secrets import webhook_secret

log = logging.getLogger("liftlock.watch")


class Handler(BaseHTTPRequestHandler):
    """POST /webhook, GET /health. Every answer is one line of words."""

    receiver: Receiver
    timeout = 30

    def do_GET(self) -> None:
        self._answer(*((200, "ready") if self.path == "/health" else (404, "only /health and /webhook are here")))

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length") or ""
        if self.path != "/webhook":
            self._answer(404, "only /health and /webhook are here")
        elif not length.isdecimal() or int(length) > MAX_BYTES:
            self._answer(413, f"body: {length or 'no'} bytes said, required at most {MAX_BYTES}")
        else:
            self._answer(*self._take(self.rfile.read(int(length))))

    def _take(self, body: bytes) -> tuple[int, str]:
        try:
            return 200, self.receiver.take(dict(self.headers), body)
        except WebhookRefused as refused:
            return refused.status, f"refused: {refused}"
        except (EventNotSent, psycopg.Error) as error:
            return 503, f"not now: {error}"  # MLflow tries it again

    def _answer(self, status: int, said: str) -> None:
        if self.command == "POST":
            log.warning("%s %s", status, said)
        body = f"{said}\n".encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Answers are logged in words above."""


def serve(port: int, receiver: Receiver) -> ThreadingHTTPServer:
    """On loopback; the caller runs `serve_forever`."""
    server = ThreadingHTTPServer(("127.0.0.1", port), type("Bound", (Handler,), {"receiver": receiver}))
    server.daemon_threads = True
    return server


def sweep_for_ever(connecting: Connect, prefect_api: str, ended: threading.Event) -> None:
    while not ended.wait(BEAT_SECONDS):
        try:
            for run_id in sweep(connecting, partial(crash_flow_run, prefect_api)):
                log.warning("run %s lost its lease", run_id)
        except (psycopg.Error, httpx.HTTPError) as error:
            log.warning("sweep: %s; the next one tries again", error)


def main() -> None:
    logging.basicConfig(format="%(asctime)s %(message)s")
    settings = get_settings()
    where = addresses(settings)
    connecting = partial(connect, where.dsn("liftlock"))
    receiver = Receiver(connecting, webhook_secret(settings.state), PrefectEvents(where.prefect_api).send)
    threading.Thread(
        target=sweep_for_ever, args=(connecting, where.prefect_api, threading.Event()), daemon=True
    ).start()
    serve(int(where.watch.rpartition(":")[2]), receiver).serve_forever()


if __name__ == "__main__":
    main()
