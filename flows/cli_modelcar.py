"""`liftlock modelcar`: build, push, pull, inspect and diff images of models. Needs no other part of Liftlock to run.

flows/cli_signing.py adds `sign` and `verify` to the same group. Exit codes as in flows/cli.py.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.modelcar_build import (
    annotations_of,
    bring_or_digest,
    check_card,
    errors,
    find_shell,
    put_modelpack,
    told,
    toolchain_shell,
)
from flows.modelcar_text import say, say_comparison, say_description, say_pulled

if TYPE_CHECKING:
    from serving.modelcar import Access

modelcar = typer.Typer(help="Build, push, pull, sign and verify images of models.", no_args_is_help=True)

AuthFile = Annotated[
    Path | None, typer.Option("--auth-file", help="A Docker config.json with credentials, e.g. ~/.docker/config.json.")
]
CaFile = Annotated[Path | None, typer.Option("--ca-file", help="PEM file of further authorities for TLS.")]
PlainHttp = Annotated[bool, typer.Option("--plain-http", help="HTTP without TLS; loopback addresses need no asking.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
Streams = Annotated[int, typer.Option("--streams", min=1, max=32, help="How many blobs are on their way at a time.")]
MountFrom = Annotated[
    list[str] | None,
    typer.Option("--mount-from", help="Repository of the same registry that may have the base's layers; repeatable."),
]
Image = Annotated[str, typer.Argument(help="HOST/REPOSITORY:TAG, HOST/REPOSITORY@sha256:… or oci:FOLDER:TAG.")]


def access_of(auth_file: Path | None, ca_file: Path | None, plain_http: bool) -> Access:
    from serving.modelcar import Access

    return Access(auth_file.expanduser() if auth_file else None, ca_file, plain_http)


@modelcar.command()
def build(
    model: Annotated[Path, typer.Argument(help="Folder of a base model, or a Hugging Face snapshot.")],
    to: Annotated[
        str | None, typer.Option("--to", help="Where to put it: HOST/REPOSITORY:TAG or oci:FOLDER:TAG.")
    ] = None,
    adapter: Annotated[Path | None, typer.Option("--adapter", help="Folder of a LoRA adapter.")] = None,
    adapter_name: Annotated[
        str | None, typer.Option("--adapter-name", help="Its folder below models/adapters.")
    ] = None,
    shell: Annotated[Path | None, typer.Option("--shell", help="The pinned busybox; see `modelcar shell`.")] = None,
    no_shell: Annotated[
        bool, typer.Option("--no-shell", help="Without it KServe's oci:// cannot serve the image; image volumes can.")
    ] = False,
    annotation: Annotated[
        list[str] | None,
        typer.Option("--annotation", help="KEY=VALUE for the manifest, part of its digest; repeatable."),
    ] = None,
    allow_licence: Annotated[
        list[str] | None, typer.Option("--allow-licence", help="Refuse other licences (exit 3); repeatable.")
    ] = None,
    modelpack: Annotated[
        bool, typer.Option("--modelpack", help="Also a CNCF ModelPack artifact of the same bytes, tag TAG-modelpack.")
    ] = False,
    mount_from: MountFrom = None,
    streams: Streams = 4,
    auth_file: AuthFile = None,
    ca_file: CaFile = None,
    plain_http: PlainHttp = False,
    as_json: AsJson = False,
) -> None:
    """Pack a model, and its adapter, into an image whose digest depends on their bytes alone.

    The layers stream from the model's files to the registry or folder; without --to only the digest is computed.

    Example: liftlock modelcar build ./base --adapter ./lora --adapter-name router --to 127.0.0.1:5055/models/router:v1
    """
    from serving.modelcar import model_layers, parse_reference

    target = parse_reference(to) if to else None
    annotations = annotations_of(annotation or [])
    layers = model_layers(model, adapter, adapter_name, None if no_shell else find_shell(shell))
    licence = check_card(model, layers, allow_licence or [], annotations)
    access = access_of(auth_file, ca_file, plain_http)
    document = bring_or_digest(layers, annotations, target, access, mount_from or [], streams)
    if modelpack:
        document["modelpack"] = put_modelpack(layers, model.resolve().name, annotations, target, access)
    say(document | {"licence": licence, "layers": told(layers)}, as_json)


@modelcar.command()
def push(
    source: Image,
    target: Annotated[str, typer.Argument(help="HOST/REPOSITORY:TAG or oci:FOLDER:TAG.")],
    mount_from: MountFrom = None,
    streams: Streams = 4,
    auth_file: AuthFile = None,
    ca_file: CaFile = None,
    plain_http: PlainHttp = False,
    as_json: AsJson = False,
) -> None:
    """Copy an image byte for byte to a registry or a layout folder; what is there already is not sent.

    Example: liftlock modelcar push oci:./modelcars:router-1 registry.example.com/models/router:v1
    """
    from flows.byte_bar import ByteBar
    from serving.modelcar import copy_image, open_store, parse_reference

    start, end = parse_reference(source), parse_reference(target)
    access = access_of(auth_file, ca_file, plain_http)
    with open_store(start, access) as have, open_store(end, access) as want, ByteBar(errors, "push") as bar:
        result = copy_image(
            have, start.wanted, want, end.tag, mount_from=mount_from or [], streams=streams, progress=bar.update
        )
    say({"reference": end.pinned(result.digest), **asdict(result)}, as_json)


@modelcar.command()
def pull(
    image: Image,
    folder: Annotated[Path, typer.Argument(help="A new or empty folder.")],
    adapter: Annotated[str | None, typer.Option("--adapter", help="Only this adapter, in adapters/NAME.")] = None,
    streams: Streams = 4,
    auth_file: AuthFile = None,
    ca_file: CaFile = None,
    plain_http: PlainHttp = False,
    as_json: AsJson = False,
) -> None:
    """Place an image's model into a folder, verified by digest; the folder appears complete or not at all.

    Example: liftlock modelcar pull 127.0.0.1:5055/models/router:v1 ./router
    """
    from flows.byte_bar import ByteBar
    from serving.modelcar import open_store, parse_reference
    from serving.modelcar.image import adapter_title
    from serving.modelcar.pull import pull as place

    reference = parse_reference(image)
    only = [adapter_title(adapter)] if adapter else []
    with open_store(reference, access_of(auth_file, ca_file, plain_http)) as store, ByteBar(errors, "pull") as bar:
        pulled = place(store, reference.wanted, folder.absolute(), only=only, streams=streams, progress=bar.update)
    if as_json:
        typer.echo(json.dumps(asdict(pulled), indent=2))
    else:
        say_pulled(pulled)


@modelcar.command()
def inspect(
    image: Image,
    files: Annotated[bool, typer.Option("--files", help="Also the files of layers up to 32 MiB.")] = False,
    auth_file: AuthFile = None,
    ca_file: CaFile = None,
    plain_http: PlainHttp = False,
    as_json: AsJson = False,
) -> None:
    """Show an image's digest, platform, layers and annotations without fetching weights.

    Example: liftlock modelcar inspect oci:.liftlock/modelcars:router-1 --files
    """
    from serving.modelcar import open_store, parse_reference
    from serving.modelcar.describe import describe, layer_files

    reference = parse_reference(image)
    with open_store(reference, access_of(auth_file, ca_file, plain_http)) as store:
        description = describe(store, reference.wanted)
        inside = [layer_files(store, layer) if files else None for layer in description.layers]
    if as_json:
        document = asdict(description) | {"annotations": dict(description.annotations)}
        for layer, listed in zip(document["layers"], inside, strict=True):
            if listed is not None:
                layer["files"] = [asdict(file) for file in listed]
        typer.echo(json.dumps(document, indent=2))
        return
    say_description(description, inside)


@modelcar.command()
def diff(
    before: Image,
    after: Annotated[str, typer.Argument(help="The image to compare with.")],
    auth_file: AuthFile = None,
    ca_file: CaFile = None,
    plain_http: PlainHttp = False,
    as_json: AsJson = False,
) -> None:
    """Show which layers and small files differ, and the bytes to fetch for the second. Exit 3 when they differ.

    Example: liftlock modelcar diff 127.0.0.1:5055/models/router:v1 127.0.0.1:5055/models/router:v2
    """
    from serving.modelcar import open_store, parse_reference
    from serving.modelcar.compare import compare

    old, new = parse_reference(before), parse_reference(after)
    access = access_of(auth_file, ca_file, plain_http)
    with open_store(old, access) as old_store, open_store(new, access) as new_store:
        found = compare(old_store, old.wanted, new_store, new.wanted)
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=2))
    else:
        say_comparison(found)
    raise typer.Exit(0 if found.same else 3)


@modelcar.command()
def shell(
    file: Annotated[Path | None, typer.Argument(help="Where to put it; the toolchain folder where not given.")] = None,
) -> None:
    """Fetch the pinned static busybox with apt-get, for the image's shell layer.

    Example: liftlock modelcar shell
    """
    from serving.modelcar.shell import fetch_shell

    destination = file or toolchain_shell()
    fetch_shell(destination)
    typer.echo(destination)
