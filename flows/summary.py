"""The table at the end of a release, and what one does next."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table


def print_summary(document: dict[str, Any]) -> None:
    console = Console(soft_wrap=True, highlight=False)
    table = Table("stage", "verdict", "seconds", "digest", box=None, pad_edge=False)
    for stage in document["stages"]:
        seconds = "cached" if stage["cached"] else f"{stage['seconds']:.1f}"
        table.add_row(stage["name"], stage["status"], seconds, stage["digest"].removeprefix("sha256:")[:16])
    console.print()
    console.print(table)
    console.print()
    console.print(_sentence(document), markup=False)
    for reason in document["reasons"] if document["verdict"] != "champion" else []:
        console.print(f"  {reason}", markup=False)
    console.print(f"report   {document['report']}", markup=False)


def _sentence(document: dict[str, Any]) -> str:
    name, champion = document["model"]["name"], document["champion"]["version"]
    if document["verdict"] == "champion":
        return f"{name} version {champion} is champion, served at {document['gateway']}/v1 as {name}"
    kept = f"version {champion} stays champion" if champion else "there is no champion"
    return f"{name}: {document['verdict']}; {kept}"
