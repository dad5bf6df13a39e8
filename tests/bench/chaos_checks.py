"""What must hold after every release of make bench-chaos, whatever went wrong in it. Not a test."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import mlflow
import psutil
import psycopg

from tasks.promotion.ledger import ALIASES, lines, verify
from tasks.settings import Settings
from tasks.stack.addresses import addresses
from tests.fix_stack import Stack


def versions(state: Path, name: str) -> dict[str, str]:
    """Every version with its evidence key."""
    client = mlflow.MlflowClient(addresses(Settings(state=state)).mlflow)
    return {str(one.version): one.tags["liftlock.evidence"] for one in client.search_model_versions(f"name = '{name}'")}


def misses(stack: Stack, name: str, before: dict[str, str]) -> list[str]:
    """After a release that ended as champion: what is lost, doubled or half-way, in words."""
    now = versions(stack.state, name)
    made = sorted(now.keys() - before.keys(), key=int)
    found = [f"version {one} is gone" for one in before.keys() - now.keys()]
    if len(made) != 1:
        return [*found, f"it made versions {made}, required one"]
    if len(set(now.values())) != len(now):
        found.append("two versions have the same evidence")
    found += _ledger(stack.state, name, made[0])
    if (shown := stack.run("show", name)).returncode != 0:
        found.append(f"show: {shown.stdout.strip().splitlines()[-1:]}")
    try:
        stack.ask(name)
    except Exception as error:  # noqa: BLE001 - whatever it is, the champion does not answer
        found.append(f"the gateway does not answer: {error}")
    return found + [f"left running: {one}" for one in strays(stack.state)]


def _ledger(state: Path, name: str, version: str) -> list[str]:
    """Each alias came to the version once, the chain holds, and no move is half-way."""
    with psycopg.connect(addresses(Settings(state=state)).dsn("liftlock"), autocommit=True) as connection:
        told = lines(connection, name)
        count, faults = verify(connection)
        row = connection.execute("SELECT count(*) FROM alias_journal WHERE state = 'open'").fetchone()
    came = Counter(line.alias for line in told if line.to_version == version and line.kind == "move")
    found = [f"{alias} came to version {version} {came[alias]} times" for alias in ALIASES if came[alias] != 1]
    if faults:
        found.append(f"{len(faults)} faults in {count} lines of the ledger: {faults[0].said}")
    return found + ([f"{row[0]} moves are half-way"] if row and row[0] else [])


def strays(state: Path, *, supervised: bool = True) -> list[str]:
    """Processes of this state folder that the stack does not know of; with `supervised` False, all of them."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline"]):
        try:
            words, environment = " ".join(process.info["cmdline"] or ()), process.environ()
            ancestors = " ".join(" ".join(one.cmdline()) for one in process.parents())
        except psutil.Error:
            continue
        ours = str(state) in words or environment.get("LIFTLOCK_STATE") == str(state)
        known = supervised and "supervisord" in f"{words} {ancestors}"
        if ours and not known and "bench_chaos" not in words:
            found.append(f"{process.info['pid']} {words[:100]}")
    return found


def listening(ports: set[int]) -> list[int]:
    return sorted({one.laddr.port for one in psutil.net_connections("tcp") if one.status == psutil.CONN_LISTEN} & ports)
