"""`liftlock deploy`: the deployments of prefect.yaml, their work pool and the notifications, in the Prefect that the settings name."""

from __future__ import annotations

import json
from typing import Annotated, Literal

import typer
from rich.console import Console

from flows.cli_promotion import PANEL, AsJson, connected

out = Console(soft_wrap=True, highlight=False, markup=False)


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel=PANEL)(deploy)


def deploy(
    pool: Annotated[Literal["liftlock", "kubernetes"], typer.Option(help="The work pool that runs them.")] = "liftlock",
    notify: Annotated[str | None, typer.Option(help="URL that is told of rejections, rollbacks and drift.")] = None,
    as_json: AsJson = False,
) -> None:
    """Register every deployment of prefect.yaml in Prefect. `prefect deploy --all` does the same for the pool liftlock.

    For the pool kubernetes the Jobs' image must be named by its digest; exit 2 where it is not.

    Example: liftlock deploy
    """
    from tasks.settings import get_settings
    from tasks.stack.deployments import TEMPLATE, check_image, deploy_all, ensure_work_pool

    if pool == "kubernetes":
        check_image(TEMPLATE.read_text())
    where = connected(start=False)
    ensure_work_pool(where.prefect_api, pool)
    deploy_all(where.prefect_api, get_settings().state / "prefect", pool)
    told = _notifications(where.prefect_api, notify) if notify else []
    if as_json:
        typer.echo(json.dumps({"pool": pool, "prefect": where.prefect_api, "notifications": told}, indent=2))
        return
    out.print(f"deployed to the pool {pool} at {where.prefect_page}")
    for name in told:
        out.print(f"told by Prefect: {name}")


def _notifications(prefect_api: str, url: str) -> list[str]:
    from tasks.stack.notifications import ensure_notifications

    return ensure_notifications(prefect_api, url)
