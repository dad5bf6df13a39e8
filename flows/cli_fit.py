"""`liftlock fit`: does a model fit a GPU, do the manifests of a folder, and what was learned from engines that started.

    liftlock fit MODEL --gpu NAME …    liftlock fit --manifests DIR …    liftlock fit calibrate LOGFILE…

Parsing and printing only; the work is in serving.fit.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from serving.fit import EngineFlags, FitReport, Gpu
    from serving.fit.open_model import Places

DEFAULT = "model"  # the command that runs where none is named
PINNED = "0.23.0"

Model = Annotated[
    str | None,
    typer.Argument(
        metavar="MODEL", help="A folder, a config.json, a Hugging Face id (ORG/NAME@REVISION), or an image."
    ),
]
Adapters = Annotated[list[Path] | None, typer.Option("--adapter", help="A LoRA adapter's folder; repeatable.")]
Manifests = Annotated[
    Path | None, typer.Option("--manifests", metavar="DIR", help="Check each vLLM container of rendered manifests.")
]
ModelRoot = Annotated[
    Path | None, typer.Option("--model-root", metavar="DIR", help="With --manifests: where the models are.")
]
StampTo = Annotated[
    Path | None, typer.Option("--stamp", metavar="OUT", help="With --manifests: write stamped copies there.")
]
Write = Annotated[bool, typer.Option("--write", help="With --manifests: stamp the files themselves.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
GpuName = Annotated[
    str | None, typer.Option("--gpu", metavar="NAME", help="A GPU of the catalogue, such as nvidia-l4.")
]
GpuMemory = Annotated[
    float | None, typer.Option("--gpu-memory", metavar="GIB", help="The total that the driver reports, in GiB.")
]
Tensor = Annotated[int, typer.Option("--tensor-parallel-size", "-tp", help="GPUs that share the model.")]
Utilization = Annotated[float | None, typer.Option("--gpu-memory-utilization", help="vLLM's share of the memory.")]
Length = Annotated[int | None, typer.Option("--max-model-len", help="Tokens of one sequence.")]
Sequences = Annotated[int | None, typer.Option("--max-num-seqs", help="Sequences at a time.")]
Batched = Annotated[int | None, typer.Option("--max-num-batched-tokens", help="Tokens of one step.")]
CacheDtype = Annotated[str, typer.Option("--kv-cache-dtype", help="auto, fp8, …")]
Quantization = Annotated[str | None, typer.Option("--quantization", help="awq, gptq, fp8, bitsandbytes, …")]
Eager = Annotated[bool, typer.Option("--enforce-eager", help="No CUDA graphs.")]
Loras = Annotated[int | None, typer.Option("--max-loras", help="LoRA slots.")]
LoraRank = Annotated[int | None, typer.Option("--max-lora-rank", help="Rank that each slot holds.")]
Version = Annotated[str, typer.Option("--engine-version", help="Of vLLM.")]
Endpoint = Annotated[str | None, typer.Option("--hub-endpoint", envvar="HF_ENDPOINT", help="Another Hugging Face hub.")]
Authfile = Annotated[
    Path | None, typer.Option("--authfile", envvar="REGISTRY_AUTH_FILE", help="Docker credentials for a registry.")
]


class BadInput(Exception):
    """Options that do not go together."""


class FitGroup(TyperGroup):
    """`fit MODEL` and `fit --manifests DIR` need no command's name between them."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        named = args[:1] and args[0] in self.commands and args[0] != DEFAULT
        return super().parse_args(ctx, args if named else [DEFAULT, *args])

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """The default command's name is not shown in its usage line."""
        name, command, rest = super().resolve_command(ctx, args)
        return ("" if name == DEFAULT else name), command, rest


fit = typer.Typer(cls=FitGroup, help="Say whether a model fits a GPU.", no_args_is_help=False, add_completion=False)


@fit.command(DEFAULT)
def model_command(
    model: Model = None,
    adapter: Adapters = None,
    gpu: GpuName = None,
    gpu_memory: GpuMemory = None,
    tensor_parallel_size: Tensor = 1,
    gpu_memory_utilization: Utilization = None,
    max_model_len: Length = None,
    max_num_seqs: Sequences = None,
    max_num_batched_tokens: Batched = None,
    kv_cache_dtype: CacheDtype = "auto",
    quantization: Quantization = None,
    enforce_eager: Eager = False,
    max_loras: Loras = None,
    max_lora_rank: LoraRank = None,
    engine_version: Version = PINNED,
    manifests: Manifests = None,
    model_root: ModelRoot = None,
    stamp: StampTo = None,
    write: Write = False,
    hub_endpoint: Endpoint = None,
    authfile: Authfile = None,
    as_json: AsJson = False,
) -> None:
    """Say whether MODEL starts on a GPU, with every part of the memory and the flags that would help.

    It reads config.json and safetensors headers, never weights. Exit 0: fits or tight; 3: does not fit; 2: bad input.
    `liftlock fit calibrate LOGFILE…` compares it with vLLM's own logs.

    Example: liftlock fit Qwen/Qwen3-4B --gpu nvidia-l4 --max-model-len 16384
    """
    from serving.fit import EngineFlags

    places = places_of(hub_endpoint, authfile)
    flags = EngineFlags(
        gpu_memory_utilization=gpu_memory_utilization,
        max_model_len=max_model_len,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=max_num_batched_tokens,
        kv_cache_dtype=kv_cache_dtype,
        quantization=quantization,
        enforce_eager=enforce_eager,
        max_loras=max_loras,
        max_lora_rank=max_lora_rank,
        tensor_parallel_size=tensor_parallel_size,
    )
    if manifests is not None:
        if model is not None or adapter or gpu_memory is not None or flags != EngineFlags():
            raise BadInput(
                "models and vLLM's flags are read from the manifests; leave out MODEL and the engine's flags"
            )
        return _manifests(manifests, model_root, stamp, write, gpu, engine_version, places, as_json)
    if model is None:
        raise BadInput("no MODEL; name a folder, an id or an image, or use --manifests DIR or calibrate LOGFILE")
    if model_root or stamp or write:
        raise BadInput("--model-root, --stamp and --write go with --manifests DIR; leave them out")
    return _model(model, tuple(adapter or ()), gpu_of(gpu, gpu_memory), flags, engine_version, places, as_json)


@fit.command()
def calibrate(
    logs: Annotated[list[Path], typer.Argument(metavar="LOGFILE...", help="vLLM's log, from its start on.")],
    gpu: GpuName = None,
    gpu_memory: GpuMemory = None,
    model: Annotated[
        str | None,
        typer.Option("--model", help="What was served, where the log's own name for it is not readable here."),
    ] = None,
    engine_version: Annotated[
        str | None, typer.Option("--engine-version", help="Of vLLM, where the log does not say it.")
    ] = None,
    hub_endpoint: Endpoint = None,
    authfile: Authfile = None,
    as_json: AsJson = False,
) -> None:
    """Learn from vLLM's logs how far the estimate was off, per engine version and GPU, and show it.

    What was learned is kept in the state folder and shown beside later verdicts; it changes none.

    Example: liftlock fit calibrate vllm.log --gpu nvidia-l4
    """
    from flows.fit_output import residual_table
    from serving.fit.calibrate import read_start
    from serving.fit.residual_store import add_starts
    from serving.fit.residuals import learn
    from tasks.settings import get_settings

    places = places_of(hub_endpoint, authfile)
    card = gpu_of(gpu, gpu_memory) if gpu or gpu_memory else None
    starts = [read_start(log, model, card, engine_version, places) for log in logs]
    residuals = learn(add_starts(get_settings().state, starts))
    if as_json:
        from dataclasses import asdict

        typer.echo(json.dumps([asdict(row) for row in residuals], indent=2))
    else:
        typer.echo(residual_table(residuals))


def _model(
    model: str, adapters: tuple[Path, ...], gpu: Gpu, flags: EngineFlags, version: str, places: Places, as_json: bool
) -> None:
    from flows.fit_output import verdict_text
    from serving.fit.fit_files import fit_files
    from serving.fit.model_reader import read_model
    from serving.fit.open_model import open_model

    files = read_model(open_model(model, places))
    report = fit_files(files, adapters, gpu, flags, version)
    learned = _learned(report)
    if as_json:
        read = {"model": files.name, "model_digest": files.digest, "read_from": files.origin, "calibration": learned}
        typer.echo(json.dumps(report.document() | read, indent=2))
    else:
        typer.echo(verdict_text(report, model, learned))
    raise typer.Exit(3 if report.verdict == "does_not_fit" else 0)


def _manifests(
    folder: Path,
    root: Path | None,
    stamped: Path | None,
    write: bool,
    gpu: str | None,
    version: str,
    places: Places,
    as_json: bool,
) -> None:
    from flows.fit_output import manifests_document, manifests_text
    from serving.fit.cluster import Defaults, check_manifests
    from serving.fit.manifest_files import read_manifests
    from serving.fit.model_lookup import ModelLookup
    from serving.fit.stamping import write_stamps

    if stamped is not None and write:
        raise BadInput("--stamp writes copies and --write the files themselves; use one of them")
    files = read_manifests(folder)
    checked = check_manifests(files, ModelLookup(root, places), Defaults(gpu, version))
    if stamped is not None or write:
        write_stamps(files, checked, folder if stamped is None else stamped)
    typer.echo(json.dumps(manifests_document(checked), indent=2) if as_json else manifests_text(checked))
    raise typer.Exit(3 if any(one.findings for pod in checked for one in pod.containers) else 0)


def gpu_of(name: str | None, memory_gib: float | None) -> Gpu:
    from serving.fit import custom_gpu, find_gpu, load_gpus

    if name is not None:
        return find_gpu(name, memory_gib=memory_gib)
    if memory_gib is not None:
        return custom_gpu(memory_gib)
    raise BadInput(f"no GPU; use --gpu with one of {', '.join(load_gpus())}, or --gpu-memory GIB for another card")


def _learned(report: FitReport) -> str | None:
    from serving.fit.residual_store import load_starts
    from serving.fit.residuals import learn, note
    from tasks.settings import get_settings

    return note(learn(load_starts(get_settings().state)), report.gpu, report.engine_version)


def places_of(hub_endpoint: str | None, authfile: Path | None) -> Places:
    from serving.fit.hub import DEFAULT_ENDPOINT, HubAccess
    from serving.fit.open_model import Places
    from serving.modelcar.document import Access
    from tasks.settings import get_settings

    hub = HubAccess(endpoint=hub_endpoint or DEFAULT_ENDPOINT)
    return Places(hub, Access(auth_file=authfile), get_settings().state / "modelcars")
