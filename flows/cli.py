"""The `liftlock` command. It parses, prints, and maps outcomes to exit codes; the work is in tasks and flows.

Exit codes: 0 yes or done, 1 something broke, 2 bad input or usage, 3 the answer is no, 4 inconclusive.
Heavy imports stand inside the commands, so that `liftlock --help` answers at once.
"""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import sys
import warnings
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.main import get_command

from flows import cli_fit_slots as _cli_fit_slots  # noqa: F401 - adds `fit slots`
from flows.cli_coherence import coherence
from flows.cli_deliver import register as register_deliver
from flows.cli_deploy import register as register_deploy
from flows.cli_doctor import register as register_doctor
from flows.cli_drill import register as register_drill
from flows.cli_fit import fit
from flows.cli_gate_change import gate
from flows.cli_gateway import register as register_gateway
from flows.cli_history import register as register_history
from flows.cli_keys import keys
from flows.cli_modelcar import modelcar
from flows.cli_promotion import ledger
from flows.cli_promotion import register as register_promotion
from flows.cli_rag import register as register_rag
from flows.cli_recall import register as register_recall
from flows.cli_render import register as register_render
from flows.cli_rollout import rollout
from flows.cli_serve import register as register_serve
from flows.cli_signing import register as register_signing
from flows.cli_status import print_parts, status
from flows.help import OneScreen

app = typer.Typer(
    name="liftlock",
    cls=OneScreen,
    help="Dataset to served model, through gates that open only on evidence.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
errors = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
app.add_typer(fit, name="fit", rich_help_panel="Release")
app.add_typer(gate, name="gate", rich_help_panel="Release")
app.add_typer(modelcar, name="modelcar", rich_help_panel="Release")
app.add_typer(rollout, name="rollout", rich_help_panel="Release")
app.add_typer(ledger, name="ledger", rich_help_panel="Promotion")
app.add_typer(keys, name="keys", rich_help_panel="Release")
register_signing(modelcar)
app.command(rich_help_panel="Release")(coherence)
register_promotion(app)
register_deliver(app)
register_deploy(app)
register_doctor(app)
register_drill(app)
register_serve(app)
register_history(app)
register_rag(app)
register_gateway(app)
register_recall(app)
register_render(app)
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
BAD_INPUT_CODE = 2


def _bring_up(wait_for_engine: bool = True) -> Any:
    from tasks.settings import get_settings
    from tasks.stack.control import up

    return up(get_settings(), lambda line: errors.print(f"  {line}"), wait_for_engine=wait_for_engine)


@app.command(rich_help_panel="Release")
def release(
    spec: Annotated[Path, typer.Argument(help="A release.yaml.")],
    resume: Annotated[bool, typer.Option("--resume", help="Go on in the last unfinished run of this model.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Run every stage, whatever the cache holds.")] = False,
    as_json: AsJson = False,
) -> None:
    """Take a dataset to a served champion, or say why not.

    Example: liftlock release evals/ticket_router/release.yaml
    """
    from flows.run_release import run_release
    from flows.summary import print_summary
    from tasks.base_model import resolve_base
    from tasks.package import check_package
    from tasks.settings import get_settings
    from tasks.spec import load_release

    read, settings = load_release(spec), get_settings()
    check_package(read, resolve_base(read.base_model, settings), settings)
    errors.print("stack")
    where = _bring_up(wait_for_engine=False)
    document = run_release(spec, where, resume=resume, fresh=fresh)
    if as_json:
        typer.echo(json.dumps(document, indent=2))
    else:
        print_summary(document)
    raise typer.Exit(int(document["exit_code"]))


@app.command(rich_help_panel="Release")
def init(folder: Annotated[Path, typer.Argument(help="A new or empty folder.")]) -> None:
    """Write a commented starting spec with a small data set to replace by your own.

    Example: liftlock init my_model && liftlock release my_model/release.yaml
    """
    from flows.scaffold import scaffold

    for path in scaffold(folder):
        typer.echo(path)
    errors.print(f"next: put your items into {folder}/data, then `liftlock release {folder}/release.yaml`")


@app.command(rich_help_panel="Release")
def schema() -> None:
    """Print the JSON Schema of release.yaml, for editors.

    Example: liftlock schema > release.schema.json
    """
    from tasks.spec import json_schema

    typer.echo(json.dumps(json_schema(), indent=2))


@app.command(rich_help_panel="Local stack")
def up() -> None:
    """Start what is not running and wait until all of it answers.

    Example: liftlock up
    """
    from tasks.settings import get_settings
    from tasks.stack.control import status as read_parts

    _bring_up()
    print_parts(read_parts(get_settings()))


@app.command(rich_help_panel="Local stack")
def down() -> None:
    """Stop every part of the local stack.

    Example: liftlock down
    """
    from tasks.settings import get_settings
    from tasks.stack.control import down as take_down

    take_down(get_settings())
    errors.print("the local stack is down")


app.command(rich_help_panel="Local stack")(status)


@app.command(rich_help_panel="Local stack")
def logs(
    name: Annotated[
        str, typer.Argument(help="A part: postgres, mlflow, prefect, worker, watch, vllm, envoy or embeddings.")
    ],
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="How many lines from the end.")] = 40,
) -> None:
    """Print the end of a part's log.

    Example: liftlock logs vllm -n 100
    """
    from tasks.settings import get_settings

    folder = get_settings().state / "logs"
    file = folder / f"{name}.log"
    if file.parent != folder or file.is_symlink() or not file.is_file():
        have = ", ".join(sorted(path.stem for path in folder.glob("*.log"))) or "none yet; run `liftlock up`"
        raise BadInput(f"no log of a part named {name!r}; logs: {have}")
    typer.echo("\n".join(file.read_text(errors="replace").splitlines()[-lines:]))


class BadInput(Exception):
    """Usage that typer cannot see."""


def answer(arguments: Sequence[str]) -> int:
    """The exit code of a command that ended by itself. Raises whatever it raises; `said` makes words of that."""
    code = _command().main([*arguments], standalone_mode=False, prog_name="liftlock")
    return code if isinstance(code, int) else 0  # what typer.Exit carried comes back as the value


@lru_cache(maxsize=1)
def _command() -> Any:
    return get_command(app)


def said(error: Exception, arguments: Sequence[str]) -> tuple[int, str]:
    """Exit code and message of an error: one of a file that the arguments name is bad input, one of the machine is not."""
    from tasks.exit_codes import BAD_INPUT, code_of

    shown = error.format_message() if hasattr(error, "format_message") else str(error)
    if isinstance(error, RecursionError):
        return (
            BAD_INPUT_CODE,
            "the input is nested too deeply to be read; required: a file of at most some hundred levels",
        )
    if isinstance(error, OSError) and type(error).__name__ not in BAD_INPUT and names_wrong(error, arguments):
        path = str(error.filename)
        return BAD_INPUT_CODE, f"{path[:200]}{'…' * (len(path) > 200)}: {error.strerror}; give another path"
    return code_of(error), shown


def names_wrong(error: OSError, arguments: Sequence[str]) -> bool:
    """Whether another name would mend it: one that no file can have, or one of the arguments' that cannot be used."""
    if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
        return True
    usable = error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.EINVAL)
    return not usable and any(each and each in str(error.filename) for each in arguments)


def main() -> None:
    """Bad input and refusals end in one message and an exit code, never in a traceback."""
    warnings.filterwarnings(
        "ignore", message="XDG_RUNTIME_DIR is not set"
    )  # prefect's libraries, on a machine without a login session
    code = _run(sys.argv[1:])
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        code = _unread()
    sys.exit(code)


def _run(arguments: Sequence[str]) -> int:
    try:
        return answer(arguments)
    except typer.Abort:
        return 130
    except SystemExit:  # typer and rich leave so where a pipe breaks
        if nobody_reads():
            return _unread()
        errors.print("liftlock: the other end closed a connection; run this again")
        return 1
    except Exception as error:  # noqa: BLE001 - the one place where every error becomes a message and a code
        code, shown = said(error, arguments)
        if type(error).__name__ == "NoArgsIsHelpError":  # a bare group of commands has printed its help itself
            errors.print(shown, end="\n" if shown else "")
        else:
            errors.print(f"liftlock: {shown or type(error).__name__}")
        return code


def nobody_reads() -> bool:
    """Whether the reader of an output stream has left, as in `liftlock history NAME | head`; rich has closed the stream then."""
    looking = select.poll()
    for stream in (1, 2):
        looking.register(stream, 0)
    return any(event & select.POLLERR for _, event in looking.poll(0)) or os.path.samestat(
        os.fstat(1), Path(os.devnull).stat()
    )


def _unread() -> int:
    """The rest goes nowhere, and the code is the one of a program that SIGPIPE ended."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    return 128 + signal.SIGPIPE


if __name__ == "__main__":
    main()
