"""Rendered manifests to verdicts: every GPU container with its report, its findings, and the stamp of its pod.

    for checked in check_manifests(read_manifests(folder), ModelLookup(root, Places()), Defaults(gpu="nvidia-l4")): …

A container that cannot be judged is a finding, never silence.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from serving.fit.adapter import AdapterRefused
from serving.fit.catalogue import UnknownGpu, find_gpu
from serving.fit.config import ConfigInvalid, UnsupportedModel
from serving.fit.engines import PINNED_ENGINE, UnknownEngine
from serving.fit.fit_files import fit_files
from serving.fit.flags import FlagsRefused
from serving.fit.manifest_check import judge_container, selected_gpus
from serving.fit.manifest_files import ManifestFile
from serving.fit.manifests import Container, ManifestInvalid, Pod, gpu_containers, model_source, pods, sources
from serving.fit.model_lookup import ModelLookup
from serving.fit.model_reader import ModelUnreadable
from serving.fit.quantity import QuantityInvalid
from serving.fit.report import FitReport, worst
from serving.fit.safetensors_header import HeaderInvalid
from serving.fit.stamp import NotStampable, stamp
from serving.fit.vllm_args import ArgsInvalid, VllmArgs, parse_args

IMAGE_VERSION = re.compile(r":v?([0-9]+\.[0-9]+\.[0-9]+)")
REFUSALS = (
    AdapterRefused, ArgsInvalid, ConfigInvalid, FlagsRefused, HeaderInvalid, ModelUnreadable, UnknownEngine, UnknownGpu,
    UnsupportedModel,
)  # fmt: skip


@dataclass(frozen=True)
class Defaults:
    """What counts where the manifest does not say."""

    gpu: str | None = None
    engine_version: str = PINNED_ENGINE


@dataclass(frozen=True)
class Checked:
    """One GPU container on one kind of GPU."""

    file: str
    kind: str
    name: str
    namespace: str
    container: str
    model: str | None
    model_digest: str | None
    gpu: str | None
    report: FitReport | None
    findings: tuple[str, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class CheckedPod:
    """`stamp` is None where a container has a finding, or one is not vLLM."""

    document: Any  # the object in the file, to annotate
    annotations: tuple[str, ...]
    containers: tuple[Checked, ...]
    stamp: str | None


def check_manifests(files: Iterable[ManifestFile], lookup: ModelLookup, defaults: Defaults) -> tuple[CheckedPod, ...]:
    """Pods with a GPU, in the order of the files. Raises ManifestInvalid."""
    return tuple(
        pod for file in files for document in file.objects() for pod in _check(file, document, lookup, defaults)
    )


def _check(file: ManifestFile, document: Any, lookup: ModelLookup, defaults: Defaults) -> Iterator[CheckedPod]:
    metadata = document.get("metadata") or {}
    where = Checked(
        file.relative, str(document["kind"]), str(metadata.get("name", "")), str(metadata.get("namespace", "")),
        "", None, None, None, None, (),
    )  # fmt: skip
    try:
        found = [(pod, gpu_containers(pod)) for pod in pods(document)]
    except (QuantityInvalid, ManifestInvalid) as error:
        raise ManifestInvalid(f"{file.relative}, {where.kind} {where.name}: {error}") from error
    for pod, containers in found:
        checked = tuple(each for one in containers for each in _container(where, pod, one, lookup, defaults))
        if checked:
            yield _stamped(document, pod, containers, checked)


def _container(
    where: Checked, pod: Pod, container: Container, lookup: ModelLookup, defaults: Defaults
) -> Iterator[Checked]:
    """One for each kind of GPU that the pod selects."""
    here = replace(where, container=container.name)
    if not container.is_vllm:
        yield replace(here, notes=("It gets a GPU and does not run vLLM; it is not judged and gets no stamp.",))
        return
    try:
        args = parse_args(container.argv, container.env)
    except (ArgsInvalid, FlagsRefused) as error:
        yield replace(here, findings=(str(error),))
        return
    if pod.tensor_parallel and args.flags.tensor_parallel_size == 1:
        args = replace(args, flags=replace(args.flags, tensor_parallel_size=pod.tensor_parallel))
    source = model_source(pod, container, args.model)
    for gpu in selected_gpus(pod) or (defaults.gpu,):
        yield _judge(replace(here, model=source, gpu=gpu), pod, container, args, lookup, defaults.engine_version)


def _judge(
    here: Checked, pod: Pod, container: Container, args: VllmArgs, lookup: ModelLookup, engine_version: str
) -> Checked:
    if here.model is None or here.gpu is None:
        lacking = "model in its arguments, STORAGE_URI or image volumes" if here.model is None else "GPU in a selector"
        remedy = "Name the model in args." if here.model is None else "Add a nodeSelector, or pass --gpu."
        return replace(here, findings=(f"It names no {lacking}, so it cannot be judged. {remedy}",))
    match = IMAGE_VERSION.search(container.image)
    version = match[1] if match else engine_version
    try:
        gpu = find_gpu(here.gpu)
        files = lookup.find(here.model)
        report = fit_files(files, (), gpu, args.flags, version)
    except REFUSALS as error:
        return replace(here, findings=(str(error),))
    return replace(
        here,
        model_digest=files.digest,
        report=report,
        findings=judge_container(pod, container, args, report, gpu, sum(files.file_bytes)),
        notes=tuple(_notes(args, report, None if match else version)),
    )


def _notes(args: VllmArgs, report: FitReport, assumed_version: str | None) -> Iterator[str]:
    if report.verdict == "tight":
        yield "It is tight: it may fail to start."
    if args.unmodelled:
        yield f"Not in the estimate: --{', --'.join(args.unmodelled)}."
    if assumed_version:
        yield f"The image's tag names no version; vLLM {assumed_version} was assumed."


def _stamped(document: Any, pod: Pod, containers: tuple[Container, ...], checked: tuple[Checked, ...]) -> CheckedPod:
    try:
        return CheckedPod(document, pod.annotations, checked, _stamp(pod, containers, checked))
    except NotStampable as error:
        refused = tuple(replace(one, findings=(*one.findings, str(error))) for one in checked)
        return CheckedPod(document, pod.annotations, refused, None)


def _stamp(pod: Pod, containers: tuple[Container, ...], checked: tuple[Checked, ...]) -> str | None:
    """None where not everything was judged well. Raises NotStampable."""
    if any(one.findings or one.report is None for one in checked):
        return None
    reports = [one.report for one in checked if one.report is not None]
    return stamp(
        {container.name: container.argv for container in containers},
        gpu=",".join(dict.fromkeys(report.gpu for report in reports)),
        model=",".join(dict.fromkeys(one.model_digest for one in checked if one.model_digest)),
        selector={str(key): str(value) for key, value in (pod.spec.get("nodeSelector") or {}).items()},
        sources=sources(pod),
        verdict=worst(*(report.verdict for report in reports)),
    )
