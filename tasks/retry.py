"""Which exceptions deserve another try: the network's, not the gate's."""

from __future__ import annotations

from typing import Any

import httpx
import psycopg

from rag.chat import ChatUnavailable
from rag.embed_http import EmbedderBusy

TRANSIENT = (httpx.TransportError, psycopg.OperationalError, ChatUnavailable, EmbedderBusy, ConnectionError)
TRANSIENT_STATUS = (429, 500, 502, 503, 504)


def is_transient(error: BaseException) -> bool:
    """Connection errors, 429 and 5xx. A gate, out of memory, any other 4xx and a digest mismatch are final."""
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code in TRANSIENT_STATUS
    status = getattr(error, "get_http_status_code", None)  # MlflowException
    if callable(status):
        return status() in TRANSIENT_STATUS
    return isinstance(error, TRANSIENT)


def retry_condition(task: Any, task_run: Any, state: Any) -> bool:
    """Prefect's hook: asked after a failed attempt."""
    result = state.result(raise_on_failure=False)
    return isinstance(result, BaseException) and is_transient(result)
