"""release.yaml: what changes per release. Read with line numbers, so that a wrong key or value is named where it stands.

`load_release(path)` is the only way in; it also checks that the files a spec names exist, before anything expensive runs.
"""

from __future__ import annotations

import difflib
import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails

from tasks.cluster_spec import ClusterSpec, TrainingClusterSpec, known_gpu
from tasks.gate_spec import GateSpec, Part
from tasks.plain_yaml import Plain, Where, YamlInvalid, read_plain

NOT_OF_THE_BYTES = {"timeout_seconds", "where", "cluster"}
"""Of `training`: what says where and how long, and not what is learned."""
ALL_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
NAME = r"^[a-z][a-z0-9-]{1,39}$"


class SpecInvalid(Exception):
    """A release.yaml that cannot be used. The message lists every fault with file, line and what is allowed."""


class DatasetSpec(Part):
    """JSON Lines files; each line is an item with `id` and the fields that the prompt and the task name."""

    train: Path = Field(description="Training items, one JSON object a line.")
    test: Path = Field(description="Items that the gate scores. No training item may be among them.")
    replay: Path | None = Field(None, description="Dialogs mixed into training so that other skills are kept.")
    answer: str = Field("answer", description="Field of an item that holds the right answer.")
    slices: tuple[str, ...] = Field((), description="Fields of an item that the report breaks the score down by.")


class TrainingSpec(Part):
    """LoRA with TRL. Names are those of peft's LoraConfig and transformers' TrainingArguments."""

    r: int = Field(8, ge=1, le=256, description="Rank of the adapter.")
    lora_alpha: int = Field(16, ge=1, le=1024, description="Scale: updates are multiplied by lora_alpha / r.")
    target_modules: tuple[str, ...] = Field(ALL_LINEAR, min_length=1, description="Modules that get an adapter.")
    first_layer: int = Field(0, ge=0, description="Layers below this one get no adapter (cheaper, often as good).")
    learning_rate: float = Field(2e-4, gt=0, le=0.1, description="Highest; it falls to 0 by the end.")
    num_train_epochs: float = Field(1.0, gt=0, le=100, description="Rounds over the training items.")
    per_device_train_batch_size: int = Field(8, ge=1, le=512, description="Items a step.")
    warmup_steps: int = Field(0, ge=0, description="Steps in which the learning rate rises.")
    max_length: int = Field(512, ge=16, le=131072, description="Longer training texts are refused, not cut.")
    seed: int = Field(
        0,
        ge=0,
        le=2**32 - 1,
        description="The same seed and data give the same adapter, byte for byte, on one machine.",
    )
    timeout_seconds: int = Field(
        3600, ge=30, description="Training is stopped after this long; time in a queue does not count."
    )
    where: Literal["local", "kubernetes"] = Field(
        "local", description="local: in a process of this machine; kubernetes: as a Job in Kueue's queue."
    )
    cluster: TrainingClusterSpec = Field(TrainingClusterSpec(), description="Of kubernetes: what the Job asks for.")


class ServingSpec(Part):
    """How the model is served, in vLLM's words, and the GPU it must fit."""

    gpu: str = Field("nvidia-l4", description="Name in serving/fit/gpus.yaml.")
    max_model_len: int = Field(2048, ge=16, description="Tokens of a request and its answer.")
    gpu_memory_utilization: float = Field(0.92, gt=0, le=1, description="Share of the GPU that vLLM may take.")
    max_num_seqs: int = Field(64, ge=1, le=4096, description="Requests at a time.")
    max_loras: int = Field(4, ge=1, le=256, description="Adapters at a time.")
    max_lora_rank: Literal[8, 16, 32, 64, 128, 256] = Field(8, description="At least training.r.")
    engine_version: str | None = Field(
        None,
        pattern=r"^[0-9]{1,4}\.[0-9]{1,4}(\.[0-9]{1,4})?$",
        description="vLLM's; left out, of the engine that serves.",
    )

    @field_validator("gpu")
    @classmethod
    def _known(cls, gpu: str) -> str:
        return known_gpu(gpu)


class ModelcarSpec(Part):
    """The image that the model is shipped in."""

    licences: tuple[str, ...] = Field(
        (), description="Licences that the base may have, as its model card names them; left out, any."
    )
    shell: bool | None = Field(
        None, description="The shell that KServe's oci:// needs; left out, in for every target but local."
    )


class SloSpec(Part):
    """Absolute limits of the served model, which at most 5 % of the canary's requests may pass. In seconds."""

    first_token_p95: float | None = Field(None, gt=0, le=600, description="Until the first token.")
    inter_token_p95: float | None = Field(None, gt=0, le=600, description="Mean time between two tokens.")
    end_to_end_p95: float | None = Field(None, gt=0, le=3600, description="Until the last token.")

    @property
    def limits(self) -> tuple[tuple[str, float], ...]:
        """(metric's name, seconds) of those that are set."""
        found = (
            ("first_token", self.first_token_p95),
            ("inter_token", self.inter_token_p95),
            ("end_to_end", self.end_to_end_p95),
        )
        return tuple((name, seconds) for name, seconds in found if seconds is not None)


class DeliverySpec(Part):
    """How the new version takes over the traffic."""

    target: Literal["local", "gitops", "kubernetes"] = Field(
        "local",
        description="local: vLLM and Envoy on this machine; gitops: commits to the platform's repository; kubernetes: server-side apply.",
    )
    cluster: ClusterSpec = Field(ClusterSpec(), description="Of gitops and kubernetes: how it is served there.")
    strategy: Literal["adapter", "pool", "swap", "mirror", "auto"] = Field(
        "adapter",
        description="adapter: one engine, two adapters, the gateway rewrites the model name by weight; pool: a second engine, for "
        "another base model or other limits; swap: one engine replaces the other, with a gap; mirror: locally, copies of clients' "
        "requests before the first weight; auto: what the running engine and the fit report allow, on a cluster its GPUs and quotas.",
    )
    steps: tuple[Annotated[int, Field(ge=1, le=100)], ...] = Field(
        (10, 50, 100), description="Weights of the canary in percent; the last is 100."
    )
    min_requests: int = Field(20, ge=1, le=10000, description="Requests the canary must have answered in each step.")
    max_error_rate: float = Field(0.0, ge=0, le=1, description="Highest share of failed canary requests.")
    max_first_token_ratio: float = Field(
        2.0, gt=1, le=100, description="Tolerated ratio of each time against stable at the same time."
    )
    sticky: str | None = Field(
        None,
        pattern=r"^[a-z0-9-]{1,64}$",
        description="A request header, such as x-session-id: the same value gets the same version in a step.",
    )
    slo: SloSpec | None = Field(None, description="Absolute limits of times.")
    warmup_requests: int = Field(
        4, ge=1, le=1000, description="Requests the candidate must answer before it gets any weight."
    )
    warmup_first_token_seconds: float = Field(
        10, gt=0, le=600, description="First-token time that warmup_requests answers in a row must keep."
    )
    hold_seconds: float = Field(
        300, gt=0, le=86400, description="Longest time in a step without a decision; then the canary is undone."
    )
    drain_seconds: float = Field(
        30, ge=0, le=3600, description="How long running streams of an undone candidate may go on."
    )

    @model_validator(mode="after")
    def _mirror_is_local(self) -> DeliverySpec:
        if self.target != "local" and self.strategy == "mirror":
            raise ValueError("strategy mirror is of the target local; on a cluster say adapter, pool, swap or auto")
        return self

    @field_validator("steps")
    @classmethod
    def _rising_to_100(cls, steps: tuple[int, ...]) -> tuple[int, ...]:
        if list(steps) != sorted(set(steps)) or steps[-1:] != (100,):
            raise ValueError("must rise and end at 100, e.g. [10, 50, 100]")
        return steps


class ApprovalSpec(Part):
    """How many people must approve before an alias moves. Who asked for it does not count."""

    staging: Literal["none", "one", "two"] = Field("none", description="Before the image is built and signed.")
    champion: Literal["none", "one", "two"] = Field("none", description="Before the canary.")
    expires_hours: float = Field(
        72, gt=0, le=8760, description="After this long without them the request ends with a no."
    )


class SampleSpec(Part):
    """The RAG sample that answers through the served model at the end of a release."""

    documents: tuple[Path, ...] = Field(min_length=1, description="Files or folders of Markdown and text.")
    questions: tuple[str, ...] = Field(min_length=1, max_length=20, description="Asked of the served model.")


class Release(Part):
    """One release: a dataset to a served model."""

    name: str = Field(
        pattern=NAME, description="Name of the model: in MLflow, in the modelcar, and for clients of the gateway."
    )
    base_model: str = Field(
        description="A folder under the models folder, a path, or a Hugging Face id with safetensors weights."
    )
    dataset: DatasetSpec = Field(description="The items that are learned from and scored.")
    training: TrainingSpec = Field(TrainingSpec(), description="How the adapter is trained.")
    gate: GateSpec = Field(description="What the adapter must show before it may serve.")
    serving: ServingSpec = Field(ServingSpec(), description="How it is served, and the GPU it must fit.")
    modelcar: ModelcarSpec = Field(ModelcarSpec(), description="The image that it is shipped in.")
    delivery: DeliverySpec = Field(DeliverySpec(), description="How it takes over the traffic.")
    approval: ApprovalSpec = Field(ApprovalSpec(), description="Who must say yes.")
    sample: SampleSpec | None = Field(None, description="Questions answered from documents at the end.")

    @model_validator(mode="after")
    def _rank_fits_the_engine(self) -> Release:
        if self.training.r > self.serving.max_lora_rank:
            raise ValueError(
                f"training.r is {self.training.r}, but serving.max_lora_rank is {self.serving.max_lora_rank}; raise the latter or lower r"
            )
        return self


def json_schema() -> dict[str, Any]:
    """The JSON Schema of release.yaml, for editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Release.model_json_schema()}


def load_release(path: Path, needed: tuple[str, ...] = ()) -> Release:
    """Read and check a spec; the paths in it become absolute (they are relative to the spec's folder).

    `needed` are the places whose files must be there, such as "gate" or "dataset.test"; all of them by default.
    Raises SpecInvalid.
    """
    tree = _read(path)
    try:
        spec = Release.model_validate_json(json.dumps(tree.value), strict=True)
    except ValidationError as error:
        raise SpecInvalid("\n".join(_fault(path, tree, detail) for detail in _deepest(error.errors()))) from None
    missing = [
        f"{path}:{tree.line(where)}: {'.'.join(where)}: {path.parent / file} {fault}"
        for where, file in _files(spec)
        if ".".join(where).startswith(needed or "")
        if (fault := _unusable(path.parent / file, folder_too=where[0] == "sample"))
    ]
    if missing:
        raise SpecInvalid("\n".join(missing))
    return _absolute(spec, path.parent)


def _read(path: Path) -> Plain:
    if not path.is_file():
        observed = "a folder" if path.is_dir() else "no such file"
        raise SpecInvalid(f"{path}: {observed}; give the path of a release.yaml, or make one with `liftlock init DIR`")
    try:
        tree = read_plain(path.read_text(encoding="utf-8-sig"))
    except YamlInvalid as error:
        raise SpecInvalid(f"{path}:{error.line}: {error}") from None
    except UnicodeDecodeError:
        raise SpecInvalid(f"{path}: not UTF-8 text; save it as UTF-8") from None
    if not isinstance(tree.value, dict):
        raise SpecInvalid(f"{path}:1: a release is a mapping with the keys {', '.join(Release.model_fields)}")
    return tree


def _deepest(errors: list[ErrorDetails]) -> list[ErrorDetails]:
    """Without the faults that only follow from a fault further in, such as a list that is too short without its wrong item."""
    places = [error["loc"] for error in errors]
    return [
        error
        for error in errors
        if not any(len(place) > len(error["loc"]) and place[: len(error["loc"])] == error["loc"] for place in places)
    ]


def _fault(path: Path, tree: Plain, detail: ErrorDetails) -> str:
    said = re.sub(r"^Value error, ", "", detail["msg"])
    if not detail["loc"]:  # a rule over several keys: its message begins with the key to change
        return f"{path}:{tree.line(tuple(said.split()[0].split('.')))}: {said}"
    where = tuple(str(part) for part in detail["loc"])
    place = f"{path}:{tree.line(where)}: {'.'.join(where)}"
    if detail["type"] == "extra_forbidden":
        allowed = list(_model_at(where[:-1]).model_fields)
        near = difflib.get_close_matches(where[-1], allowed, n=1)
        hint = f"; did you mean {near[0]}?" if near else "."
        return f"{place}: unknown key{hint} Allowed here: {', '.join(allowed)}"
    if detail["type"] == "missing":
        return f"{place}: missing. {_model_at(where[:-1]).model_fields[where[-1]].description or ''}".rstrip()
    if detail["type"] == "model_type":
        said = f"must be a mapping with keys of {', '.join(_model_at(where).model_fields)}"
    return f"{place}: {said} (found {detail['input']!r:.80})"


def _model_at(where: Where) -> type[BaseModel]:
    model: type[BaseModel] = Release
    for part in where:
        if part.isdigit():
            continue
        annotation = model.model_fields[part].annotation
        options = [annotation, *get_args(annotation)]
        model = next(o for o in options if isinstance(o, type) and issubclass(o, BaseModel))
    return model


def _unusable(path: Path, folder_too: bool) -> str | None:
    try:
        if path.is_file() or (folder_too and path.is_dir()):
            return None
        return "is a folder, required a file" if path.is_dir() else "does not exist"
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _absolute(spec: Release, folder: Path) -> Release:
    def under(path: Path) -> Path:
        return (folder / path).resolve()

    dataset = spec.dataset.model_copy(
        update={key: under(value) for key in ("train", "test", "replay") if (value := getattr(spec.dataset, key))}
    )
    gate = spec.gate.model_copy(
        update={key: under(value) for key in ("task", "prompt", "cases") if (value := getattr(spec.gate, key))}
    )
    sample = spec.sample and spec.sample.model_copy(
        update={"documents": tuple(under(path) for path in spec.sample.documents)}
    )
    return spec.model_copy(update={"dataset": dataset, "gate": gate, "sample": sample})


def _files(spec: Release) -> list[tuple[tuple[str, ...], Path]]:
    named: list[tuple[tuple[str, ...], Path | None]] = [
        *((("dataset", key), getattr(spec.dataset, key)) for key in ("train", "test", "replay")),
        *((("gate", key), getattr(spec.gate, key)) for key in ("task", "prompt", "cases")),
    ]
    if spec.sample:
        named += [(("sample", "documents", str(i)), path) for i, path in enumerate(spec.sample.documents)]
    return [(where, path) for where, path in named if path is not None]
