"""`liftlock index`, `ask`, `chat` and `page`: documents in, answers with their sources out."""

from __future__ import annotations

import json
import sys
import uuid
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console

if TYPE_CHECKING:
    from rag.answer import Answer, Source
    from rag.ask import Asked, Chat
    from rag.embed import Embedder
    from rag.index import IndexResult
    from tasks.rag import Parts

PANEL = "Documents"
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
Tenant = Annotated[str, typer.Option(help="Whose documents; a tenant sees its own alone.")]
Model = Annotated[str | None, typer.Option(help="Model to ask through the gateway; else the only one it serves.")]
Passages = Annotated[int, typer.Option("-k", min=1, max=50, help="How many passages to answer from.")]
Under = Annotated[str, typer.Option(help="Only sources whose path begins so.")]
Kind = Annotated[list[str] | None, typer.Option(help="Only documents of this kind: markdown, html, pdf, text or code.")]
out = Console(soft_wrap=True, highlight=False, markup=False)
log = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)


def register(app: typer.Typer) -> None:
    for command in (index, ask, chat, page):
        app.command(rich_help_panel=PANEL)(command)


def index(
    paths: Annotated[
        list[str], typer.Argument(help="Folders, files, or a Git repository's address: URL or URL#BRANCH.")
    ],
    tenant: Tenant = "default",
    precision: Annotated[Literal["vector", "halfvec"], typer.Option(help="Numbers of 4 bytes, or of 2.")] = "vector",
    as_json: AsJson = False,
) -> None:
    """Make the index hold exactly these documents. What has not changed is neither embedded nor written.

    Example: liftlock index docs
    """
    from tasks.rag import index_paths, local_paths, open_parts
    from tasks.settings import get_settings

    settings = get_settings()
    documents = local_paths(settings, paths)
    with open_parts(settings) as parts:
        result = index_paths(parts, documents, tenant, precision=precision, progress=_progress())
    _say_indexed(result, as_json)


def ask(
    question: Annotated[str, typer.Argument(help="In your own words.")],
    tenant: Tenant = "default",
    model: Model = None,
    k: Passages = 4,
    under: Under = "",
    kind: Kind = None,
    explain: Annotated[bool, typer.Option("--explain", help="Print Postgres' plan of the search instead.")] = False,
    as_json: AsJson = False,
) -> None:
    """Answer one question from the documents, with its sources. Exit 4 when it is not in the documents.

    Example: liftlock ask "What does exit code 3 mean?"
    """
    from rag.ask import explain_search
    from tasks.rag import open_parts
    from tasks.settings import get_settings

    asked = _asked(question, tenant, k, under, kind)
    with open_parts(get_settings()) as parts:
        embedder = parts.embedder(asked.request_id)
        if explain:
            typer.echo(explain_search(asked, conn=parts.conn, embedder=embedder))
            return
        answer = _answer(asked, parts, embedder, parts.chat(model, asked.request_id), shown=not as_json)
    if as_json:
        typer.echo(json.dumps(asdict(answer), indent=2))
    raise typer.Exit(4 if answer.outcome == "abstained" else 0)


def chat(
    tenant: Tenant = "default", model: Model = None, k: Passages = 4, under: Under = "", kind: Kind = None
) -> None:
    """Ask one question after another; an empty line or Ctrl-D ends it. Short questions are searched with the one before.

    Example: liftlock chat
    """
    from tasks.rag import open_parts
    from tasks.settings import get_settings

    before: tuple[dict[str, str], ...] = ()
    previous = ""
    with open_parts(get_settings()) as parts:
        while question := _read_question():
            asked = replace(_asked(question, tenant, k, under, kind), before=before, previous=previous)
            answer = _answer(
                asked, parts, parts.embedder(asked.request_id), parts.chat(model, asked.request_id), shown=True
            )
            turn = ({"role": "user", "content": question}, {"role": "assistant", "content": answer.text})
            before, previous = (*before, *turn)[-4:], question


def page(
    tenant: Tenant = "default",
    model: Model = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8300,
    listen: Annotated[
        str, typer.Option(help="Address to listen on. It has no accounts: mind who reaches it.")
    ] = "127.0.0.1",
    answer_to: Annotated[str, typer.Option(help="Names it is asked by besides loopback's, with commas.")] = "",
) -> None:
    """Serve the page and its HTTP API, until Ctrl-C.

    Example: liftlock page --port 8300
    """
    from tasks.rag_page import Where, serve
    from tasks.settings import get_settings

    where = Where(listen, port, tuple(name for name in answer_to.split(",") if name))
    serve(get_settings(), tenant, model, where, lambda url: log.print(f"answers at {url}"))


def _asked(question: str, tenant: str, k: int, under: str, kind: list[str] | None) -> Asked:
    from rag.ask import Asked
    from rag.corpus import KINDS
    from rag.search import Filter
    from tasks.rag import check_tenant

    for one in kind or []:
        if one not in KINDS:
            raise typer.BadParameter(f"{one!r} is no kind of document; {', '.join(KINDS)} are", param_hint="--kind")
    if not question.strip():
        raise typer.BadParameter("the question is empty", param_hint="QUESTION")
    where = Filter(tuple(kind or ()), under)
    return Asked(question, check_tenant(tenant), k=k, where=where, request_id=uuid.uuid4().hex)


def _answer(asked: Asked, parts: Parts, embedder: Embedder, chat: Chat, *, shown: bool) -> Answer:
    """On a terminal the text comes as it is written; elsewhere only what was judged is printed."""
    from rag.ask import stream

    answer: Answer | None = None
    live = shown and sys.stderr.isatty()
    for step in stream(asked, conn=parts.conn, embedder=embedder, chat=chat):
        if step.delta and live:
            log.print(step.delta, end="", style="dim")
        answer = step.answer or answer
    if live:
        log.print()
    if answer is None:
        raise AssertionError("a stream ends with the answer")
    if shown:
        _print_answer(answer)
    return answer


def _print_answer(answer: Answer) -> None:
    out.print(answer.text)
    if answer.outcome == "quoted":
        log.print("  (a sentence of the source: it did not support the model's own words)")
    for source in answer.sources:
        out.print(f"  {_source_line(source)}", style="" if source.is_cited else "dim")


def _source_line(source: Source) -> str:
    place = " › ".join((f"{source.source}:{source.line}", *source.headings))
    return f"[{source.number}] {place}  {source.similarity:.2f}"


def _read_question() -> str:
    if sys.stdin.isatty():
        log.print("> ", end="")
    return sys.stdin.readline().strip()


def _say_indexed(result: IndexResult, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(asdict(result), indent=2))
        return
    for reason in result.skipped:
        log.print(f"  skipped: {reason}")
    typer.echo(
        f"{result.documents} documents, {result.chunks} passages: {result.embedded} embedded, {result.written} written, "
        f"{result.deleted} removed, {len(result.skipped)} files skipped"
    )


def _progress() -> Any:
    """One line that is written over, on a terminal alone."""

    def show(what: str, done: int, total: int) -> None:
        if log.is_terminal:
            log.print(f"\r  {what} {done} of {total}   ", end="")

    return show
