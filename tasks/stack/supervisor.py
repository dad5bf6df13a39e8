"""supervisord: its configuration rendered from the parts, and its XML-RPC interface on a Unix socket."""

from __future__ import annotations

import hashlib
import http.client
import itertools
import os
import re
import shlex
import stat
import subprocess
import sys
import tempfile
import time
import xmlrpc.client
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from supervisor.xmlrpc import SupervisorTransport

from tasks.stack import alone
from tasks.stack.parts import Part
from tasks.whole_file import write_whole

STOP_SECONDS = 20
COMMENT = re.compile(r"\s[;#]")  # where supervisord cuts a line off, even between quotes
ALONE = (sys.executable, "-P", alone.__file__)
FAULT_BAD_NAME, FAULT_NOT_RUNNING, FAULT_ALREADY_STARTED = 10, 70, 60


class SupervisorFailed(Exception):
    """The process manager itself does not start or answer."""


@dataclass(frozen=True)
class ProcessState:
    """What supervisord says of one part. `started_at` is a Unix time."""

    name: str
    state: str
    pid: int
    started_at: int


def socket_folder(state: Path) -> Path:
    """Outside the state folder: a Unix socket's path is limited to about 100 characters."""
    key = hashlib.sha256(str(state).encode()).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"liftlock-{os.getuid()}-{key}"


def render(parts: Sequence[Part], state: Path) -> str:
    """supervisord.conf as text. Programs stop in the reverse of their order: the worker before its server.

    Raises SupervisorFailed where a value cannot be written in that form.
    """
    folder, home = socket_folder(state), _escaped(str(state))
    lines = [
        "[unix_http_server]", f"file={_escaped(str(folder))}/supervisor.sock", "chmod=0600",
        "[supervisord]", f"logfile={home}/logs/supervisord.log", f"pidfile={home}/supervisord.pid", "nodaemon=false",
        "silent=true", "minfds=4096", f"childlogdir={home}/logs", f"identifier=liftlock-{folder.name}",
        "[rpcinterface:supervisor]", "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface",
    ]  # fmt: skip
    places = itertools.count(1)
    for part in parts:
        lines += _program(part, next(places) if part.priority is None else part.priority, state)
    for line in lines:  # the value is not shown: it may be a secret
        if COMMENT.search(line):
            raise SupervisorFailed(
                f"{line.partition('=')[0]} of a part holds a space before ; or #, which supervisord takes for a comment; "
                "percent-encode it, or choose another folder"
            )
    return "\n".join(lines) + "\n"


def _program(part: Part, priority: int, state: Path) -> list[str]:
    environment = ",".join(f"{key}={_quoted(key, value)}" for key, value in sorted(part.environment.items()))
    log = f"{state}/logs/{part.name}.log"
    return [
        f"[program:{part.name}]",
        "command=" + _escaped(shlex.join([*(ALONE if part.leaves_children else ()), *part.command])),
        f"directory={_escaped(str(part.folder))}",
        *([f"environment={environment}"] if environment else []),
        *([f"user={part.user}"] if part.user else []),
        f"priority={priority}", "autostart=false", "autorestart=true", "startsecs=1", "startretries=20",
        f"stopsignal={part.stop_signal}", f"stopwaitsecs={STOP_SECONDS}", "stopasgroup=true", "killasgroup=true",
        f"stdout_logfile={_escaped(log)}", "stdout_logfile_maxbytes=20MB", "stdout_logfile_backups=1", "redirect_stderr=true",
    ]  # fmt: skip


def _escaped(value: str) -> str:
    return value.replace("%", "%%")


def _quoted(key: str, value: str) -> str:
    """For `environment`, whose syntax has two kinds of quotes and no escapes."""
    quote = "'" if '"' in value else '"'
    if quote in value or value != value.strip("'\""):
        raise SupervisorFailed(f"the value of {key} has both kinds of quotes, or one at an end; percent-encode them")
    return quote + _escaped(value) + quote


class Supervisor:
    """A running (or not yet running) supervisord of one state folder."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.socket = socket_folder(state) / "supervisor.sock"

    @property
    def _rpc(self) -> Any:
        """A fresh connection a call: supervisor's transport cannot be used again once a call has failed."""
        transport = SupervisorTransport(serverurl=f"unix://{self.socket}")
        return xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport).supervisor

    def is_up(self) -> bool:
        try:
            return bool(self._rpc.getState()["statename"] == "RUNNING")
        except (OSError, http.client.HTTPException, xmlrpc.client.Error):
            return False

    def end_orphans(self) -> None:
        """What a killed supervisord left running keeps its ports, and nobody would restart or stop it. Nothing while one is up."""
        if not self.is_up():
            alone.end(alone.marked(f"unix://{self.socket}"))

    def ensure(self, parts: Sequence[Part], held: Collection[str] = ()) -> list[str]:
        """Start supervisord, or give a running one the new configuration; a part whose definition changed is stopped, but for
        those of `held`, which run on as they were started. Their names are returned where they changed. Raises SupervisorFailed.
        """
        config = self.state / "supervisord.conf"
        self._write(config, render(parts, self.state))
        if self.is_up():
            return self._reload(held)
        done = subprocess.run(
            [sys.executable, "-m", "supervisor.supervisord", "-c", str(config)],
            capture_output=True,
            text=True,
            check=False,
        )
        for _ in range(100 if done.returncode == 0 else 0):
            if self.is_up():
                return []
            time.sleep(0.05)
        raise SupervisorFailed(
            f"supervisord did not start: {(done.stderr or done.stdout).strip()[-300:]}; see {self.state}/logs/supervisord.log"
        )

    def _write(self, config: Path, text: str) -> None:
        (self.state / "logs").mkdir(parents=True, exist_ok=True)
        self.socket.parent.mkdir(mode=0o700, exist_ok=True)
        found = self.socket.parent.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            raise SupervisorFailed(
                f"{self.socket.parent} is somebody else's, required: a folder of this user; remove it"
            )
        write_whole(config, text, mode=0o600)  # it holds the database password, and `status` has it read at any time

    def _reload(self, held: Collection[str]) -> list[str]:
        added, differing, removed = self._rpc.reloadConfig()[0]
        changed = [name for name in differing if name not in held]
        for name in [*changed, *removed]:
            self._rpc.stopProcessGroup(name)
            self._rpc.removeProcessGroup(name)
        for name in [*added, *changed]:
            self._rpc.addProcessGroup(name)
        return [name for name in differing if name in held]

    def differing(self) -> list[str]:
        """The parts that run with other settings than the configuration file has now. Nothing is changed by asking.
        None where that file is gone or broken: `up` writes it anew, and whoever asks still learns the states.
        """
        try:
            return list(self._rpc.reloadConfig()[0][1]) if self.is_up() else []
        except xmlrpc.client.Fault:
            return []

    def states(self) -> dict[str, ProcessState]:
        if not self.is_up():
            return {}
        found = self._rpc.getAllProcessInfo()
        return {one["name"]: ProcessState(one["name"], one["statename"], one["pid"], one["start"]) for one in found}

    def start(self, name: str) -> None:
        try:
            self._rpc.startProcess(name, False)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode != FAULT_ALREADY_STARTED:
                raise

    def stop(self, name: str) -> None:
        try:
            self._rpc.stopProcess(name, True)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode not in (FAULT_NOT_RUNNING, FAULT_BAD_NAME):
                raise

    def shutdown(self) -> None:
        """Stop every part in the reverse of its order, then supervisord, then what killed parts left behind."""
        if self.is_up():
            self._rpc.stopAllProcesses()
            self._rpc.shutdown()
            for _ in range(200):
                if not self.is_up():
                    break
                time.sleep(0.05)
        alone.end(alone.marked(f"unix://{self.socket}"))
