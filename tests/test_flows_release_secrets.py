"""After real releases no secret lies where it was not put, and nothing of the stack listens beyond this machine."""

from __future__ import annotations

import stat
from typing import Any

import httpx
import psutil
import pytest

from tasks.settings import Settings
from tasks.stack.addresses import addresses
from tests.fix_canaries import ENVIRONMENT, KEPT, PLANTED, Search, processes_of
from tests.fix_stack import Stack

pytestmark = [pytest.mark.slow, pytest.mark.stack, pytest.mark.timeout(3600)]
HANDED_ON = {"LIFTLOCK_API_KEY", "LIFTLOCK_PLATFORM_TOKEN"}  # to worker and watch, by supervisord.conf
LOOPBACK = {"127.0.0.1", "::1"}


def test_planted_secrets_are_only_in_the_files_that_are_meant_for_them(stack: Stack, champion: dict[str, Any]) -> None:
    """The stack of all these tests runs with them in its environment. Its own secrets and a client's API key are searched too."""
    assert stack.environment.items() >= ENVIRONMENT.items()
    added = stack.run("apikey", "add", "ada")
    try:
        assert added.returncode == 0, added.stderr
        key = added.stdout.strip()
        own = (stack.state / "gateway" / "own.key").read_text().strip()
        asked = httpx.get(f"{stack.gateway}/v1/models", headers={"authorization": f"Bearer {key}"}, timeout=60)
        assert asked.status_code == 200
        pem = (stack.state / "keys" / "liftlock.key").read_text().splitlines()[1]
        made = {name: (stack.state / name).read_text().strip() for name in KEPT}
        search = Search({**PLANTED, **made, "client's key": key, "own.key": own, "liftlock.key": pem})
        search.folder(stack.state)
        search.databases(addresses(Settings(state=stack.state)))
        search.arguments(stack.state)
        for page in (
            "prefect/api/admin/settings",
            "envoy-admin/config_dump",
            "vllm/metrics",
            "mlflow/api/2.0/mlflow/webhooks",
        ):
            part, _, path = page.partition("/")
            search.look(page, httpx.get(f"http://127.0.0.1:{stack.ports()[part]}/{path}", timeout=60).content)
        search.look("output", f"{champion['stdout']}{champion['stderr']}".encode())
        search.look("status", stack.run("status", "--json").stdout.encode())
    finally:
        assert stack.run("apikey", "off").returncode == 0
    meant = {("supervisord.conf", name) for name in (*HANDED_ON, "postgres.password", "webhook.key")}
    meant |= {(name, name) for name in KEPT} | {("gateway/own.key", "own.key"), ("keys/liftlock.key", "liftlock.key")}
    assert search.found == meant
    assert search.looked > 100
    for place in {place for place, _ in meant} - {"gateway/own.key"}:  # which `apikey off` has removed
        assert stat.S_IMODE((stack.state / place).stat().st_mode) == 0o600, place


def test_others_cannot_enter_the_state_folder(stack: Stack, champion: dict[str, Any]) -> None:
    assert stat.S_IMODE(stack.state.stat().st_mode) in (0o700, 0o710)  # root lets Postgres' user pass through


def test_every_socket_of_every_process_of_the_stack_is_on_loopback(stack: Stack, champion: dict[str, Any]) -> None:
    found = list(processes_of(stack.state))
    listening = {
        (process.name(), one.laddr.ip)
        for process in found
        for one in process.net_connections("inet")
        if one.status == psutil.CONN_LISTEN or (not one.raddr and one.laddr)  # the second: UDP
    }
    assert {ip for _, ip in listening} <= LOOPBACK, listening
    assert len(found) > 10 and {"postgres", "envoy", "vllm"} <= {name for name, _ in listening}
