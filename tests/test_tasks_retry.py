"""Which errors deserve another try."""

import errno

import httpx
import psycopg
import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, RESOURCE_DOES_NOT_EXIST, TEMPORARILY_UNAVAILABLE
from prefect.states import Failed

from rag.chat import ChatUnavailable
from serving.engine import AdapterNotLoaded
from serving.rollout.warmth import WarmUpFailed
from tasks.child import ChildFailed
from tasks.ledger import AliasMoved
from tasks.retry import is_transient, retry_condition


def answered(status: int) -> httpx.HTTPStatusError:
    request = httpx.Request("GET", "http://127.0.0.1/")
    return httpx.HTTPStatusError("no", request=request, response=httpx.Response(status, request=request))


TRANSIENT: list[BaseException] = [
    httpx.ConnectError("refused"),
    httpx.ReadTimeout("slow"),
    httpx.RemoteProtocolError("cut"),
    *(answered(status) for status in (429, 500, 502, 503, 504)),
    psycopg.OperationalError("server closed the connection"),
    ConnectionResetError(errno.ECONNRESET, "reset"),
    ChatUnavailable("the gateway is away"),
    MlflowException("the server is away"),
    MlflowException("later", error_code=TEMPORARILY_UNAVAILABLE),
]
FINAL: list[BaseException] = [
    *(answered(status) for status in (400, 401, 403, 404, 409, 413, 422)),
    MlflowException("no such run", error_code=RESOURCE_DOES_NOT_EXIST),
    MlflowException("reserved", error_code=INVALID_PARAMETER_VALUE),
    psycopg.errors.UniqueViolation("twice"),
    psycopg.ProgrammingError("syntax"),
    AdapterNotLoaded("404"),
    WarmUpFailed("cold"),
    AliasMoved("moved"),
    ChildFailed("CUDA out of memory"),
    MemoryError(),
    FileNotFoundError("adapter"),
    ValueError("spec"),
    AssertionError(),
    KeyboardInterrupt(),
]


@pytest.mark.parametrize("error", TRANSIENT, ids=repr)
def test_the_networks_errors_are_tried_again(error: BaseException) -> None:
    assert is_transient(error)


@pytest.mark.parametrize("error", FINAL, ids=repr)
def test_answers_and_verdicts_are_final(error: BaseException) -> None:
    assert not is_transient(error)


@pytest.mark.parametrize("error", [TRANSIENT[0], FINAL[0]], ids=repr)
def test_prefect_asks_with_the_failed_state(error: Exception) -> None:
    assert retry_condition(None, None, Failed(data=error)) == is_transient(error)
