"""`liftlock serve`: the champions of many models on one engine."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from flows.cli_promotion import AsJson, connected

if TYPE_CHECKING:
    from serving.fit.slots import Slots
    from tasks.serve import Served

out = Console(soft_wrap=True, highlight=False, markup=False)
notes = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
STYLES = {"served": "green", "no record": "yellow", "refused": "red"}


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel="Release")(serve)


def serve(
    models: Annotated[
        list[str] | None, typer.Argument(help="Models to serve; left out, all that have a champion.")
    ] = None,
    gpu: Annotated[
        str | None, typer.Option(help="The GPU that the slots must fit; left out, the releases' own.")
    ] = None,
    concurrency: Annotated[
        float, typer.Option(min=1, help="Sequences of full length that the KV cache must keep.")
    ] = 1.0,
    slots: Annotated[int | None, typer.Option(min=1, help="At most so many adapters in the GPU at once.")] = None,
    as_json: AsJson = False,
) -> None:
    """Serve the champions of many models on one engine: slots by fit, adapters from verified modelcars, each probed. Exit 3 where one is refused.

    Example: liftlock serve ticket-router triage --gpu nvidia-l4
    """  # fmt: skip
    connected(start=True)
    import mlflow

    from tasks import serve as task
    from tasks.settings import get_settings

    settings, client = get_settings(), mlflow.MlflowClient()
    recalled = task.champions(client, models or [])
    specs = task.on_the_first_engine(settings, [one.spec for one in recalled])
    found = None
    if specs:
        base = task.base_of(specs, settings)
        found = task.slots_of(base, specs, gpu, concurrency, slots)
        task.bring_up(settings, task.engine_with(base, specs, found), lambda line: notes.print(line))
    served = [task.serve_one(settings, client, one) for one in recalled]
    _print(found, served, as_json)
    refused = [one for one in served if one.state == "refused"]
    if refused:
        raise task.ProbeRefused(f"{len(refused)} of {len(served)} are refused: {refused[0].model}: {refused[0].said}")


def _print(slots: Slots | None, served: list[Served], as_json: bool) -> None:
    names = ("max_loras", "max_lora_rank", "max_cpu_loras", "reason") if slots else ()
    chosen = {name: getattr(slots, name) for name in names}
    if as_json:
        return typer.echo(json.dumps({"slots": chosen, "served": [asdict(one) for one in served]}, indent=2))
    if slots:
        flags = " ".join(f"--{name.replace('_', '-')}={chosen[name]}" for name in names[:-1])
        out.print(f"{flags}: {slots.reason} (one is for a candidate)")
    table = Table("model", "version", "adapter", "state", "golden prompts", box=None, pad_edge=False)
    for one in served:
        state = f"[{STYLES[one.state]}]{one.state}[/]"
        table.add_row(one.model, one.version, one.engine_model, state, one.said)
    Console(soft_wrap=True).print(table)
    return None
