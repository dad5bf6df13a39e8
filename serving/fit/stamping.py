"""Writes the stamps of checked pods into their manifests, or into copies. A pod without a stamp loses an old one."""

from collections.abc import Sequence
from pathlib import Path

from serving.fit.cluster import CheckedPod
from serving.fit.manifest_files import ManifestFile, annotate, remove_annotation, write_manifest
from serving.fit.stamp import ANNOTATION


def write_stamps(files: Sequence[ManifestFile], pods: Sequence[CheckedPod], target: Path) -> None:
    """`target`: the folder that was read, or one for copies of all files. Unchanged files are not written again."""
    changed = [pod.document for pod in pods if _settle(pod)]
    for file in files:
        path = target / file.relative
        if path != file.path or any(document is one for document in file.objects() for one in changed):
            write_manifest(file, path)


def _settle(pod: CheckedPod) -> bool:
    """Whether the object changed."""
    if pod.stamp is None:
        return remove_annotation(pod.document, pod.annotations, ANNOTATION)
    return annotate(pod.document, pod.annotations, ANNOTATION, pod.stamp)
