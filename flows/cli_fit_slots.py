"""`liftlock fit slots`: how many adapters one engine should hold at once, and with which flags."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Annotated

import typer

from flows.cli_fit import (
    PINNED,
    AsJson,
    BadInput,
    GpuMemory,
    GpuName,
    Length,
    Sequences,
    Utilization,
    Version,
    fit,
    gpu_of,
    places_of,
)


@fit.command("slots")
def slots_command(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The base: a folder, a Hugging Face id or an image.")],
    adapters: Annotated[int, typer.Option(min=1, max=10_000, help="Adapters to serve.")],
    rank: Annotated[int, typer.Option(min=1, help="The highest rank among them.")],
    concurrency: Annotated[
        float, typer.Option(min=1, help="Sequences of full length that the KV cache must keep.")
    ] = 1.0,
    gpu: GpuName = None,
    gpu_memory: GpuMemory = None,
    gpu_memory_utilization: Utilization = None,
    max_model_len: Length = None,
    max_num_seqs: Sequences = None,
    engine_version: Version = PINNED,
    as_json: AsJson = False,
) -> None:
    """Choose --max-loras, --max-lora-rank and --max-cpu-loras for many adapters on one engine. Exit 3 where not one slot fits.

    Example: liftlock fit slots Qwen/Qwen3-4B --gpu nvidia-l4 --adapters 64 --rank 16 --max-model-len 8192
    """
    from serving.fit import EngineFlags, FitReport
    from serving.fit.fit_files import fit_files
    from serving.fit.flags import padded_rank
    from serving.fit.model_reader import read_model
    from serving.fit.open_model import open_model
    from serving.fit.slots import choose_slots

    card, padded = gpu_of(gpu, gpu_memory), padded_rank(rank)
    asked = EngineFlags(
        gpu_memory_utilization=gpu_memory_utilization,
        max_model_len=max_model_len,
        max_num_seqs=max_num_seqs,
        max_lora_rank=padded,
    )
    if max_num_seqs is not None and concurrency > max_num_seqs:
        raise BadInput(
            f"--concurrency {concurrency:g} is more than --max-num-seqs {max_num_seqs}; the engine never runs that many"
        )
    files = read_model(open_model(model, places_of(None, None)))

    def estimate(slots: int) -> FitReport:
        return fit_files(files, (), card, replace(asked, max_loras=slots), engine_version)

    found = choose_slots(estimate, adapters, padded, concurrency)
    if as_json:
        typer.echo(json.dumps({**asdict(found), "report": found.report.document(), "flags": found.flags}, indent=2))
    elif found.max_loras:
        typer.echo(f"{found.reason}\nvllm serve {model} {' '.join(found.flags)}")
    else:
        typer.echo(f"not one slot of rank {padded} fits: {found.reason}")
    raise typer.Exit(0 if found.max_loras else 3)
