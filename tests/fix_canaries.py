"""Secrets that are planted, and the search for them in everything that a stack writes, answers and shows.

Each value is random and of one session. It is searched as it stands, in hexadecimal, and in base64 at all three offsets, as an
Authorization header or a bytea column would hold it.
"""

from __future__ import annotations

import base64
import gzip
import secrets
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil
import psycopg
from psycopg import sql

from tasks.stack.addresses import DATABASES, Addresses
from tasks.stack.supervisor import socket_folder

# what a user can give by the environment
PLANTED = {
    name: f"canary-{secrets.token_hex(16)}"
    for name in (
        "LIFTLOCK_API_KEY", "LIFTLOCK_PLATFORM_TOKEN", "LIFTLOCK_PROBE_KEY", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "PREFECT_API_KEY",
        "HF_TOKEN", "OPENAI_API_KEY", "UPSTREAM_API_KEY", "AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "COSIGN_PASSWORD",
    )
}  # fmt: skip
ENVIRONMENT = {**PLANTED, "MLFLOW_TRACKING_USERNAME": "ada"}
KEPT = ("postgres.password", "webhook.secret", "webhook.key")  # what the stack makes for itself
CHUNK = 1 << 24


def forms(value: str) -> set[bytes]:
    raw = value.encode()
    found = {raw, raw.hex().encode()}
    for offset, cut in ((0, 0), (1, 2), (2, 3)):  # characters that bytes before share
        found.add(base64.b64encode(bytes(offset) + raw)[cut : (offset + len(raw)) // 3 * 4])
    return found


class Search:
    """For all of `values`, by name. `found` is where which was: (place, name)."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self.found: set[tuple[str, str]] = set()
        self.looked = 0
        self._forms = [(form, name) for name, value in values.items() for form in forms(value)]
        self._overlap = max(len(form) for form, _ in self._forms)

    def look(self, place: str, data: bytes) -> None:
        self.looked += 1
        self.found |= {(place, name) for form, name in self._forms if form in data}

    def file(self, path: Path, place: str) -> None:
        """In chunks that overlap; what is gzip is looked at unpacked too."""
        with path.open("rb") as stream:
            before = b""
            while block := stream.read(CHUNK):
                self.look(place, before + block)
                before = block[-self._overlap :]
        with path.open("rb") as stream:
            if stream.read(2) == b"\x1f\x8b":
                try:
                    self.look(place, gzip.decompress(path.read_bytes()))
                except (OSError, EOFError, zlib.error):
                    self.look(place, b"")

    def folder(self, folder: Path) -> None:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and not path.is_symlink() and not path.is_relative_to(folder / "postgres"):
                self.file(path, str(path.relative_to(folder)))

    def databases(self, where: Addresses) -> None:
        """Every row of every table, as text: the files of a cluster hold long values compressed."""
        for database in DATABASES:
            with psycopg.connect(where.dsn(database)) as connection:
                tables = connection.execute(
                    "SELECT schemaname, tablename FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
                ).fetchall()
                for table in tables:
                    query = sql.SQL("COPY {} TO STDOUT").format(sql.Identifier(*table))
                    with connection.cursor().copy(query) as rows:
                        self.look(f"{database}.{table[1]}", b"".join(rows))

    def arguments(self, state: Path) -> None:
        """Of the stack's processes: every user of the machine can read them."""
        for process in processes_of(state):
            self.look(f"arguments of {process.name()}", "\0".join(process.cmdline()).encode())


def processes_of(state: Path) -> Iterator[psutil.Process]:
    """supervisord of this state folder, and whatever it started, however deep."""
    socket = str(socket_folder(state) / "supervisor.sock")
    daemon = int((state / "supervisord.pid").read_text())
    for process in psutil.process_iter(["pid", "environ"]):
        if process.pid == daemon or socket in (process.info["environ"] or {}).get("SUPERVISOR_SERVER_URL", ""):
            yield process
