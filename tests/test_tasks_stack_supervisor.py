"""supervisord: what is rendered for it, and how a real one restarts, changes and stops its parts."""

import configparser
import os
import re
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from supervisor.datatypes import dict_of_key_value_pairs

from tasks.settings import Settings
from tasks.stack.addresses import addresses
from tasks.stack.control import PORTS
from tasks.stack.engine import Engine
from tasks.stack.own_engines import OwnEngine
from tasks.stack.parts import Part, local_parts, on_demand_parts
from tasks.stack.ports import assign
from tasks.stack.supervisor import Supervisor, SupervisorFailed, render, socket_folder

SLEEPER = "import time; time.sleep(600)"
# with a child of its own, as servers with workers have
FAMILY = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', '{SLEEPER}']); {SLEEPER}"


def part(name: str, code: str = SLEEPER, folder: Path = Path("/"), **environment: str) -> Part:
    return Part(name, (sys.executable, "-c", code), None, environment, folder=folder)


def parsed(parts: list[Part], state: Path) -> configparser.RawConfigParser:
    """As supervisord reads it: no interpolation by the parser, comments after blanks."""
    parser = configparser.RawConfigParser(inline_comment_prefixes=(";", "#"))
    parser.read_string(render(parts, state))
    return parser


def expanded(text: str) -> str:
    return text % {}


def test_every_part_is_a_program_that_is_kept_up_and_stopped_with_its_children(tmp_path: Path) -> None:
    parser = parsed([part("postgres"), part("mlflow")], tmp_path)
    assert [name for name in parser.sections() if name.startswith("program:")] == ["program:postgres", "program:mlflow"]
    for number, name in enumerate(("postgres", "mlflow"), 1):
        found = parser[f"program:{name}"]
        assert found.getint("priority") == number  # stopped in the reverse
        assert not found.getboolean("autostart")
        for flag in ("autorestart", "stopasgroup", "killasgroup", "redirect_stderr"):
            assert found.getboolean(flag)
        assert found["stdout_logfile"] == f"{tmp_path}/logs/{name}.log"
        assert "user" not in found
        assert "environment" not in found


def test_user_folder_and_signal_are_the_parts(tmp_path: Path) -> None:
    found = parsed([replace(part("postgres"), user="nobody", stop_signal="INT", folder=Path("/var"))], tmp_path)
    assert found["program:postgres"]["user"] == "nobody"
    assert found["program:postgres"]["stopsignal"] == "INT"
    assert found["program:postgres"]["directory"] == "/var"


def test_the_socket_is_private_and_its_path_is_short(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 120)
    socket = Path(parsed([], deep)["unix_http_server"]["file"])
    assert socket.parent == socket_folder(deep)
    assert len(str(socket)) < 100
    assert parsed([], deep)["unix_http_server"]["chmod"] == "0600"
    assert socket_folder(deep) != socket_folder(tmp_path)


VALUES = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"], exclude_characters='"\\'), max_size=20)


@given(value=VALUES.filter(lambda value: value == value.strip("'") and not re.search(r"\s[;#]", value)))
def test_a_value_reaches_the_program_as_it_is(value: str) -> None:
    found = parsed([part("mlflow", URI=value, OTHER="x,y=z")], Path("/state"))["program:mlflow"]["environment"]
    assert dict_of_key_value_pairs(expanded(found)) == {"URI": value, "OTHER": "x,y=z"}


@given(words=st.lists(VALUES.filter(lambda word: not re.search(r"\s[;#]", word)), min_size=1, max_size=3))
def test_a_command_reaches_the_system_word_by_word(words: list[str]) -> None:
    command = ("program", *words)
    found = parsed([Part("x", command, None)], Path("/state"))["program:x"]["command"]
    assert tuple(shlex.split(expanded(found))) == command


@pytest.mark.parametrize("value", ["a ;b", "a #b", "a\u00a0#b"])
def test_what_supervisord_would_take_for_a_comment_is_refused_and_not_shown(value: str) -> None:
    for made in (part("x", URI=value), Part("x", ("program", value), None)):
        with pytest.raises(SupervisorFailed, match="takes for a comment") as refused:
            render([made], Path("/state"))
        assert value not in str(refused.value)


# supervisor's `environment` knows quotes and no escapes, and `command` is read by shlex
@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        (lambda: environment('say "yes" twice'), 'say "yes" twice'),
        (lambda: command('C:\\\\new "x"'), 'C:\\\\new "x"'),
        (lambda: expanded(parsed([part("x")], Path("/50%25"))["program:x"]["stdout_logfile"]), "/50%25/logs/x.log"),
    ],
    ids=["environment", "command", "path"],
)
def test_quotes_backslashes_and_percent_survive(found: Callable[[], str], wanted: str) -> None:
    assert found() == wanted


def environment(value: str) -> str:
    found = parsed([part("x", URI=value)], Path("/state"))["program:x"]["environment"]
    return str(dict_of_key_value_pairs(expanded(found))["URI"])


def command(word: str) -> str:
    found = parsed([Part("x", ("program", word), None)], Path("/state"))["program:x"]["command"]
    return shlex.split(expanded(found))[1]


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    supervisor = Supervisor(tmp_path)
    yield supervisor
    supervisor.shutdown()
    shutil.rmtree(socket_folder(tmp_path))


def await_true(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def await_running(supervisor: Supervisor, *names: str) -> dict[str, int]:
    """Process ids by name, when all of them have stayed up for supervisord's second."""
    await_true(
        lambda: all(supervisor.states()[name].state == "RUNNING" for name in names), f"{names}: {supervisor.states()}"
    )
    return {name: one.pid for name, one in supervisor.states().items() if name in names}


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_killed_part_is_restarted_and_shutdown_leaves_nothing(supervisor: Supervisor, tmp_path: Path) -> None:
    assert supervisor.states() == {}
    supervisor.ensure([part("first"), part("family", FAMILY)])
    assert {one.state for one in supervisor.states().values()} == {"STOPPED"}  # started in the order of their needs
    supervisor.start("first")
    supervisor.start("family")
    supervisor.start("family")  # already started is no error
    before = await_running(supervisor, "first", "family")
    os.kill(before["first"], signal.SIGKILL)
    await_true(lambda: supervisor.states()["first"].pid not in (0, before["first"]), "not restarted")
    after = await_running(supervisor, "first", "family")
    assert after["family"] == before["family"]
    daemon = int((tmp_path / "supervisord.pid").read_text())
    left = [daemon, *after.values(), *children(after["family"])]
    assert len(left) == 4
    supervisor.shutdown()
    await_true(lambda: not any(map(is_running, left)), f"left of {left}: {list(filter(is_running, left))}")
    assert not supervisor.is_up()
    supervisor.shutdown()  # nothing to shut down is no error


def test_a_restarted_part_does_not_meet_the_children_of_the_killed_one(supervisor: Supervisor) -> None:
    supervisor.ensure([replace(part("family", FAMILY), leaves_children=True), part("other", FAMILY)])
    supervisor.start("family")
    supervisor.start("other")
    before = await_running(supervisor, "family", "other")
    await_true(lambda: all(children(pid) for pid in before.values()), "no children")
    orphan, foreign = children(before["family"]), children(before["other"])
    os.kill(before["family"], signal.SIGKILL)
    await_true(lambda: supervisor.states()["family"].pid not in (0, before["family"]), "not restarted")
    await_running(supervisor, "family", "other")
    await_true(lambda: not any(map(is_running, orphan)), "the orphan still runs")
    assert all(map(is_running, [*foreign, before["other"]]))


def test_a_killed_engine_leaves_no_renamed_child_behind(supervisor: Supervisor, tmp_path: Path) -> None:
    """vLLM's engine core renames itself with setproctitle, which writes over /proc/PID/environ unless it is told not to."""
    settings = Settings(state=tmp_path)
    python = settings.toolchain / "vllm" / "bin" / "python"
    if not python.exists():
        pytest.skip("the vLLM environment is missing; run `make setup`")
    ports = assign(tmp_path, PORTS, in_use=())
    vllm = next(one for one in local_parts(settings, ports, addresses(settings), Engine("/x")) if one.name == "vllm")
    child = "import setproctitle, time; setproctitle.setproctitle('VLLM::EngineCore'); time.sleep(600)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    supervisor.ensure([replace(vllm, command=(str(python), "-c", parent), folder=Path("/"))])
    supervisor.start("vllm")
    pid = await_running(supervisor, "vllm")["vllm"]

    def renamed(pid: int) -> bool:
        return any(Path(f"/proc/{one}/cmdline").read_bytes().startswith(b"VLLM::") for one in children(pid))

    await_true(lambda: renamed(pid), "no renamed child")
    orphan = children(pid)
    os.kill(pid, signal.SIGKILL)
    await_true(lambda: supervisor.states()["vllm"].pid not in (0, pid), "not restarted")
    await_true(lambda: not any(map(is_running, orphan)), "the orphan still runs")


def test_worker_and_watch_get_what_the_stack_was_started_with(tmp_path: Path) -> None:
    """A release on the worker asks the engine and signs with the key that the command's would."""
    given = {"vllm_url": "http://10.0.0.1:8000", "signing_key": "awskms:///k", "api_key": "secret"}
    settings = Settings(state=tmp_path, **given)  # type: ignore[arg-type]
    ports = assign(tmp_path, PORTS, in_use=())
    parts = {one.name: one for one in local_parts(settings, ports, addresses(settings), Engine("/x"))}
    assert "vllm" not in parts
    for name in ("worker", "watch"):
        found = {key: value for key, value in parts[name].environment.items() if key.startswith("LIFTLOCK_")}
        assert found == {
            "LIFTLOCK_STATE": str(tmp_path), "LIFTLOCK_TOOLCHAIN": str(settings.toolchain),
            **{f"LIFTLOCK_{key.upper()}": value for key, value in given.items()},
        }  # fmt: skip


def test_an_engine_of_its_own_comes_and_goes_without_a_change_of_any_other_part(tmp_path: Path) -> None:
    """Else supervisord would restart the gateway under its clients."""
    settings, engines = Settings(state=tmp_path), [OwnEngine("tickets", place, Engine("/x")) for place in (1, 2)]
    ports = assign(tmp_path, (*PORTS, *(one.part for one in engines)), in_use=())

    def programs(*own: OwnEngine) -> dict[str, dict[str, str]]:
        parts = local_parts(settings, ports, addresses(settings), Engine("/x"), own)
        found = configparser.RawConfigParser()
        found.read_string(render([*parts, *on_demand_parts(settings, ports)], tmp_path))
        return {name: dict(found[name]) for name in found.sections()}

    alone, both, second = programs(), programs(*engines), programs(engines[1])
    assert both.keys() - alone.keys() == {"program:vllm-tickets-1", "program:vllm-tickets-2"}
    assert {name: both[name] for name in alone} == alone
    assert {name: both[name] for name in second} == second


def test_shutdown_ends_what_a_killed_part_left_behind(supervisor: Supervisor) -> None:
    supervisor.ensure([part("family", FAMILY)])
    supervisor.start("family")
    pid = await_running(supervisor, "family")["family"]
    await_true(lambda: bool(children(pid)), "no child")
    orphan = children(pid)
    os.kill(pid, signal.SIGKILL)
    await_true(lambda: not is_running(pid), "not killed")
    supervisor.shutdown()
    assert not any(map(is_running, orphan))


def test_what_a_killed_supervisord_left_running_ends_and_a_running_ones_parts_do_not(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    supervisor.ensure([part("family", FAMILY)])
    supervisor.start("family")
    before = await_running(supervisor, "family")["family"]
    await_true(lambda: bool(children(before)), "no child")
    orphans = [before, *children(before)]
    supervisor.end_orphans()
    assert all(map(is_running, orphans))
    daemon = int((tmp_path / "supervisord.pid").read_text())
    os.kill(daemon, signal.SIGKILL)
    await_true(lambda: not is_running(daemon), "not killed")
    assert all(map(is_running, orphans))
    supervisor.end_orphans()
    assert not any(map(is_running, orphans))
    supervisor.ensure([part("family", FAMILY)])
    supervisor.start("family")
    assert await_running(supervisor, "family")["family"] != before


def test_a_changed_part_is_restarted_and_no_other(supervisor: Supervisor) -> None:
    supervisor.ensure([part("kept"), part("changed", A="1"), part("removed")])
    for name in ("kept", "changed", "removed"):
        supervisor.start(name)
    before = await_running(supervisor, "kept", "changed", "removed")
    supervisor.ensure([part("kept"), part("changed", A="2"), part("added")])
    states = supervisor.states()
    assert states.keys() == {"kept", "changed", "added"}
    assert (states["kept"].pid, states["kept"].state) == (before["kept"], "RUNNING")
    assert (states["changed"].state, states["added"].state) == ("STOPPED", "STOPPED")
    await_true(lambda: not is_running(before["changed"]) and not is_running(before["removed"]), "not stopped")
    supervisor.start("changed")
    after = await_running(supervisor, "kept", "changed")
    assert after["kept"] == before["kept"]
    assert b"A=2" in Path(f"/proc/{after['changed']}/environ").read_bytes().split(b"\0")
    supervisor.ensure([part("kept"), part("changed", A="2"), part("added")])
    assert await_running(supervisor, "kept", "changed") == after


def test_a_changed_part_that_is_held_runs_on_until_it_is_not(supervisor: Supervisor) -> None:
    assert supervisor.ensure([part("engine", A="1"), part("other", A="1")]) == []
    for name in ("engine", "other"):
        supervisor.start(name)
    before = await_running(supervisor, "engine", "other")
    for _ in range(2):  # it is told each time
        assert supervisor.ensure([part("engine", A="2"), part("other", A="2")], {"engine", "absent"}) == ["engine"]
        assert supervisor.states()["engine"].pid == before["engine"]
        assert supervisor.differing() == supervisor.differing() == ["engine"]
    assert supervisor.states()["other"].state == "STOPPED"
    assert supervisor.ensure([part("engine", A="1"), part("other", A="2")], {"engine"}) == []  # as it was started
    assert supervisor.differing() == []
    assert supervisor.ensure([part("engine", A="2"), part("other", A="2")]) == []
    await_true(lambda: not is_running(before["engine"]), "not stopped")
    supervisor.start("engine")
    after = await_running(supervisor, "engine")
    assert b"A=2" in Path(f"/proc/{after['engine']}/environ").read_bytes().split(b"\0")


def test_without_its_configuration_file_a_running_stack_still_tells_its_states(supervisor: Supervisor) -> None:
    supervisor.ensure([part("engine")])
    supervisor.start("engine")
    (supervisor.state / "supervisord.conf").unlink()
    assert supervisor.differing() == []
    await_running(supervisor, "engine")


def test_a_value_reaches_a_real_program_and_its_output_the_log(supervisor: Supervisor, tmp_path: Path) -> None:
    value = "postgresql://me:50%25'%s(x)s @127.0.0.1/mlflow?a=1,b=\u00e9"
    folder = tmp_path / "it's a folder"
    folder.mkdir()
    code = f"import os; print(repr((os.environ['URI'], os.getcwd(), '100%')), flush=True); {SLEEPER}"
    supervisor.ensure([part("printer", code, folder, URI=value)])
    supervisor.start("printer")
    log = tmp_path / "logs" / "printer.log"
    await_true(lambda: log.exists() and log.read_text() != "", "nothing was printed")
    assert log.read_text() == f"{(value, str(folder), '100%')!r}\n"
    assert (tmp_path / "supervisord.conf").stat().st_mode & 0o777 == 0o600  # it holds the database password


def test_a_stopped_part_stays_stopped(supervisor: Supervisor) -> None:
    supervisor.ensure([part("worker")])
    supervisor.start("worker")
    await_running(supervisor, "worker")
    supervisor.stop("worker")
    supervisor.stop("worker")  # not running and unknown are no errors
    supervisor.stop("nobody")
    assert supervisor.states()["worker"].state == "STOPPED"


def test_a_supervisord_that_does_not_start_is_said(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path)
    try:
        with pytest.raises(SupervisorFailed, match=r"supervisord did not start: .*no-such-user"):
            supervisor.ensure([replace(part("worker"), user="no-such-user")])
    finally:
        shutil.rmtree(socket_folder(tmp_path))
