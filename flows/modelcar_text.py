"""What `liftlock modelcar` prints for people. The reference comes last, where a script or an eye finds it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer
from rich.filesize import decimal

if TYPE_CHECKING:
    from serving.modelcar.compare import Comparison
    from serving.modelcar.describe import Description, FileInfo
    from serving.modelcar.pull import Pulled


def say(document: dict[str, Any], as_json: bool) -> None:
    """The outcome of a build or a push."""
    if as_json:
        typer.echo(json.dumps(document, indent=2))
        return
    for layer in document.get("layers", ()):
        typer.echo(_line(layer["digest"], layer["size"], layer["title"]))
    if "bytes_sent" in document:
        typer.echo(
            f"  sent {decimal(document['bytes_sent'])} in {document['blobs_sent']} blobs; "
            f"{document['blobs_present']} were there, {document['blobs_mounted']} mounted"
        )
    if "modelpack" in document:
        typer.echo(f"  ModelPack artifact {document['modelpack']}")
    typer.echo(document.get("reference", document.get("digest")))


def say_pulled(pulled: Pulled) -> None:
    typer.echo(f"{pulled.folder}  {len(pulled.files)} files, {decimal(pulled.bytes_placed)}, {pulled.digest}")


def say_description(description: Description, inside: Sequence[tuple[FileInfo, ...] | None]) -> None:
    """`inside` has the files of each layer, None where they were not read."""
    typer.echo(
        f"{description.reference}\n  {description.media_type} {description.platform} {decimal(description.size)}"
    )
    for key, value in description.annotations:
        typer.echo(f"  {key}: {value}")
    for layer, listed in zip(description.layers, inside, strict=True):
        typer.echo(_line(layer.digest, layer.size, layer.title))
        for file in listed or ():
            typer.echo("  " + _line(f"sha256:{file.sha256}", file.size, file.name))


def say_comparison(found: Comparison) -> None:
    typer.echo(f"- {found.before}\n+ {found.after}")
    for layer in found.layers:
        one, two = (
            f"{decimal(side.size)} {side.digest[7:19]}" if side else "none" for side in (layer.before, layer.after)
        )
        typer.echo(f"{_mark(layer.before, layer.after)} {layer.title}  {one} → {two}")
    for file in found.files:
        one, two = (
            f"{decimal(side.size)} {side.sha256[:12]}" if side else "none" for side in (file.before, file.after)
        )
        typer.echo(f"{_mark(file.before, file.after)} {file.name}  {one} → {two}")
    for key, old, new in found.annotations:
        typer.echo(f"{_mark(old, new)} {key}: {old or 'none'} → {new or 'none'}")
    typer.echo(f"{found.layers_shared} layers shared, {decimal(found.bytes_to_fetch)} to fetch")


def _line(digest: str, size: int, title: str) -> str:
    return f"  {digest[:19]}…  {decimal(size):>10}  {title}"


def _mark(before: object, after: object) -> str:
    return "+" if before is None else "-" if after is None else "~"
