"""What runs in the namespace: database, MLflow, Prefect and its worker. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from serving.cluster_doctor.expected import DATABASE, PIPELINE, PLACEHOLDER, SERVERS, Expected
from serving.cluster_doctor.model import Cluster, Finding, Object, is_true, said
from serving.cluster_doctor.namespaces import absent, apply
from serving.cluster_doctor.paths import DATABASE_PATH, deployment


def check_database(cluster: Cluster, wanted: Expected) -> Iterator[Finding]:
    where, found = f"{PIPELINE}/{DATABASE}", cluster.get(DATABASE_PATH)
    if found is None:
        yield absent("database", where, apply(wanted))
    elif not is_true(found, "Ready"):
        yield Finding(
            "database", where, said(found, "Ready"), "Ready", f"kubectl -n {PIPELINE} describe cluster {DATABASE}"
        )


def check_servers(cluster: Cluster, wanted: Expected) -> Iterator[Finding]:
    for name in SERVERS:
        where, found = f"{PIPELINE}/{name}", cluster.get(deployment(name))
        if found is None:
            yield absent("deployment", where, apply(wanted))
        else:
            yield from _server(found, where, wanted)


def _server(found: Object, where: str, wanted: Expected) -> Iterator[Finding]:
    """A pod of an image that cannot be pulled is not available for that reason, so the image is named alone."""
    containers = found["spec"]["template"]["spec"]["containers"]
    for container in containers:
        image = str(container["image"])
        if "@sha256:" not in image or PLACEHOLDER in image:
            yield Finding(
                "image", where, image, "your image by digest: HOST/REPOSITORY@sha256:…",
                f"build deploy/images/flow-worker and set it under `images` in deploy/overlays/{wanted.overlay}",
            )  # fmt: skip
            return
        for variable in container.get("env") or ():
            if PLACEHOLDER in str(variable.get("value", "")):
                yield Finding(
                    "setting-unset", where, f"{variable['name']} is {variable['value']}", "a value of yours",
                    f"set it in deploy/overlays/{wanted.overlay}",
                )  # fmt: skip
    if not found["spec"].get("replicas", 1):
        yield Finding(
            "deployment",
            where,
            "0 replicas",
            "1",
            f"kubectl -n {PIPELINE} scale deployment {where.partition('/')[2]} --replicas 1",
        )
    elif not is_true(found, "Available"):
        yield Finding(
            "deployment", where, said(found, "Available"), "Available", f"kubectl -n {PIPELINE} describe pods"
        )
