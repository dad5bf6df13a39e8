"""`liftlock doctor --cluster`: what a cluster lacks for the pipeline, each with its fix. Parsing and printing only."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated

import typer
from rich.console import Console

out = Console(soft_wrap=False, highlight=False, markup=False)


class Installed(StrEnum):
    """Which folder of deploy/overlays the cluster was made with."""

    gke_l4 = "gke-l4"
    generic = "generic"
    kind_cpu = "kind-cpu"


class BadInput(Exception):
    """Nothing to examine was named."""


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel="Cluster")(doctor)


def doctor(
    cluster: Annotated[bool, typer.Option("--cluster", help="Examine the cluster of the kubeconfig.")] = False,
    overlay: Annotated[Installed, typer.Option(help="What of deploy/overlays it was made with.")] = Installed.gke_l4,
    context: Annotated[str | None, typer.Option(help="A context of the kubeconfig; left out, its current one.")] = None,
    acting_as: Annotated[
        str | None,
        typer.Option("--as", metavar="USER", help="Ask with the rights of system:serviceaccount:mlops:flow-run, say."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Say what a cluster lacks: APIs, quota, queues, secrets, labels, rights, nodes, the gateway, Argo CD; each with the fix.

    It reads, and changes nothing. Exit 0: complete; 3: something is missing; 2: no cluster, or none that answers.

    Example: liftlock doctor --cluster --as system:serviceaccount:mlops:flow-run
    """
    if not cluster:
        raise BadInput("nothing to examine; add --cluster. `liftlock status` examines the local stack")
    from flows.doctor_output import document, table, verdict
    from serving.cluster_doctor.examine import examine
    from serving.cluster_doctor.expected import expected
    from serving.cluster_doctor.read import open_api, read_cluster

    wanted = expected(overlay.value)
    read = read_cluster(open_api(context, acting_as), wanted)
    examined = examine(read, wanted)
    if as_json:
        typer.echo(json.dumps(document(examined, wanted.overlay, read.user), indent=2))
    else:
        if examined.findings:
            out.print(table(examined))
        out.print(verdict(examined, wanted.overlay, read.user))
    raise typer.Exit(3 if examined.missing else 0)
