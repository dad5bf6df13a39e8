"""What `up` refuses before it touches a running stack: a second checkout, and wider limits under clients. A real supervisord."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from serving.gateway.envoy import Split
from tasks.exit_codes import code_of
from tasks.settings import ROOT, Settings
from tasks.stack.control import engines_in_use, up
from tasks.stack.engine import Engine, EngineBusy, read_engine, write_engine
from tasks.stack.owner import StackTaken, claim
from tasks.stack.parts import Part
from tasks.stack.supervisor import Supervisor, socket_folder

ENGINE = Engine("/models/Base-1B")


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Supervisor]:
    """A stack whose one part is called vllm and has a client's champion behind the gateway."""
    supervisor = Supervisor(tmp_path)
    sleeper = (sys.executable, "-c", "import time; time.sleep(600)")
    supervisor.ensure([Part("vllm", sleeper, None, folder=Path("/"))])
    supervisor.start("vllm")
    write_engine(tmp_path, ENGINE)
    (tmp_path / "gateway").mkdir()
    (tmp_path / "gateway" / "splits.json").write_text(json.dumps([asdict(Split("router", "router-0123456789ab"))]))
    yield supervisor
    supervisor.shutdown()
    shutil.rmtree(socket_folder(tmp_path))


def files(state: Path) -> dict[str, bytes]:
    names = ("supervisord.conf", "engine.json", "ports.json", "checkout", "gateway/cds.json")
    return {name: (state / name).read_bytes() for name in names if (state / name).exists()}


def test_a_second_checkout_does_not_restart_the_stack_of_the_first(running: Supervisor, tmp_path: Path) -> None:
    (tmp_path / "checkout").write_text("/home/me/first-checkout\n")
    before = files(tmp_path), running.states()["vllm"].pid
    with pytest.raises(StackTaken) as refused:
        up(Settings(state=tmp_path), print)
    assert (files(tmp_path), running.states()["vllm"].pid) == before
    for part in ("/home/me/first-checkout", str(ROOT), "liftlock down", "LIFTLOCK_STATE"):
        assert part in str(refused.value)
    assert code_of(refused.value) == 2


def test_the_command_refuses_in_words(running: Supervisor, tmp_path: Path) -> None:
    (tmp_path / "checkout").write_text("/home/me/first-checkout\n")
    command = [str(ROOT / ".venv" / "bin" / "liftlock"), "up"]
    environment = {"LIFTLOCK_STATE": str(tmp_path), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert "/home/me/first-checkout" in done.stderr


def test_a_stack_that_is_down_is_taken_over(tmp_path: Path) -> None:
    claim(tmp_path, Path("/first"), running=False)
    claim(tmp_path, Path("/second"), running=False)
    claim(tmp_path, Path("/second"), running=True)
    with pytest.raises(StackTaken):
        claim(tmp_path, Path("/first"), running=True)


def test_wider_limits_do_not_restart_the_engine_under_clients(running: Supervisor, tmp_path: Path) -> None:
    before = files(tmp_path) | {"checkout": f"{ROOT}\n".encode()}, running.states()["vllm"].pid
    with pytest.raises(EngineBusy) as refused:
        up(Settings(state=tmp_path), print, replace(ENGINE, max_lora_rank=64))
    assert (files(tmp_path), running.states()["vllm"].pid) == before
    assert read_engine(tmp_path) == ENGINE
    assert "router" in str(refused.value)
    assert code_of(refused.value) == 2


@pytest.mark.parametrize(
    ("splits", "parts"),
    [
        ([], set()),
        ([Split("a", "a-1")], {"vllm"}),
        ([Split("a", "a-1", stable_engine="http://127.0.0.1:1")], {"vllm-a-1"}),
        ([Split("a", "a-1", "a-2", 10, "http://127.0.0.1:1", "http://127.0.0.1:2")], {"vllm-a-1", "vllm-a-2"}),
        ([Split("a", "a-1", "a-2", 10, stable_engine="http://127.0.0.1:1")], {"vllm", "vllm-a-1"}),
        ([Split("a", "a-1", "a-2", 0, candidate_engine="http://127.0.0.1:2")], {"vllm", "vllm-a-2"}),
        ([Split("a", "a-1", stable_engine="http://elsewhere:1")], set()),
    ],
)
def test_engines_in_use_are_those_that_the_gateway_sends_to(splits: list[Split], parts: set[str]) -> None:
    assert engines_in_use(splits, {"vllm-a-1": "http://127.0.0.1:1", "vllm-a-2": "http://127.0.0.1:2"}) == parts
