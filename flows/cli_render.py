"""`liftlock render`: a release's manifests as a kustomization, from the versions that the registry's aliases name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from flows.cli_promotion import AsJson

if TYPE_CHECKING:
    from serving.manifests.model import Desired
    from tasks.spec import Release

out = Console(soft_wrap=True, highlight=False, markup=False)


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel="Release")(render)


def render(
    spec: Annotated[Path, typer.Argument(metavar="SPEC", help="A release.yaml.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Where the kustomization is written.")],
    weight: Annotated[
        int, typer.Option(min=0, max=100, help="Percent for the version at @staging, beside @champion.")
    ] = 0,
    strategy: Annotated[str | None, typer.Option(help="adapter, pool or swap; else the spec's.")] = None,
    values: Annotated[
        list[Path] | None,
        typer.Option("--values", metavar="FILE", help="LiteLLM's Helm values, whose model_list is kept; repeatable."),
    ] = None,
    cluster: Annotated[
        bool, typer.Option("--cluster", help="Refuse what this kubeconfig's cluster has no room for.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write the manifests of a registered model: @champion as stable, @staging as its canary, or alone where there is no champion.

    Exit 0: written; 2: bad input; 3: the cluster has no room for it.

    Example: liftlock render release.yaml --output platform/serving/ticket-router --weight 10
    """
    from serving.manifests.render import notes
    from tasks.manifest_files import write_rendered
    from tasks.spec import load_release

    release = load_release(spec, needed=("nothing",))
    desired = _desired(release, weight, strategy, tuple(values or ()))
    desired, checked = _checked(desired) if cluster else (desired, "not held against a cluster; --cluster does that")
    written = write_rendered(desired, output)
    said = {
        "output": str(output),
        "files": written,
        "strategy": desired.strategy,
        "form": desired.form,
        "members": [_member(desired, member) for member in desired.members],
        "notes": list(notes(desired)),
        "cluster": checked,
    }
    typer.echo(json.dumps(said, indent=2)) if as_json else _show(said)


def _desired(release: Release, weight: int, strategy: str | None, values: tuple[Path, ...]) -> Desired:
    """The registry is all that is asked; nothing is started for it."""
    from tasks.settings import get_settings
    from tasks.stack.addresses import export_mlflow, mlflow_address

    export_mlflow(mlflow_address(get_settings()))
    from tasks.manifest_files import litellm_entries
    from tasks.manifests import desired_of_aliases

    return desired_of_aliases(release, weight=weight, strategy=strategy, others=litellm_entries(values))


def _checked(desired: Desired) -> tuple[Desired, str]:
    from tasks.cluster import fitted, hold_to_cluster

    said = hold_to_cluster(desired)
    return fitted(desired), said


def _member(desired: Desired, member: Any) -> dict[str, Any]:
    return {
        "version": member.version,
        "name": desired.name_of(member),
        "weight": desired.share_of(member),
        "modelcar": member.modelcar,
    }


def _show(said: dict[str, Any]) -> None:
    out.print(f"{len(said['files'])} files in {said['output']}: strategy {said['strategy']}, form {said['form']}")
    for member in said["members"]:
        out.print(f"  v{member['version']} as {member['name']}, {member['weight']} %: {member['modelcar']}")
    for note in (*said["notes"], said["cluster"]):
        out.print(f"  {note}")
