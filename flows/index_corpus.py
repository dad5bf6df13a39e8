"""Documents into pgvector, as a Prefect flow: what a schedule runs so that answers follow the documents."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact

from rag.index import IndexResult
from tasks.rag import index_paths, local_paths, open_parts
from tasks.retry import retry_condition
from tasks.settings import get_settings


@flow(name="index_corpus", flow_run_name="documents of {tenant}", log_prints=False, validate_parameters=True)
def index_corpus(paths: list[str], tenant: str = "default") -> dict[str, Any]:
    """Make the tenant's index hold exactly these documents; returns the JSON answer of `liftlock index`.

    Args:
        paths: Folders, Git checkouts or files on the worker, and addresses of Git repositories (`https://…#branch`).
        tenant: Whose documents; a tenant sees its own alone.
    """
    return asdict(_index(paths, tenant))


@task(name="index_paths", retries=2, retry_delay_seconds=10, retry_condition_fn=retry_condition, persist_result=False)
def _index(paths: list[str], tenant: str) -> IndexResult:
    """A further try goes on with what was already embedded."""
    settings = get_settings()
    documents = local_paths(settings, paths)
    with open_parts(settings) as parts:
        result = index_paths(parts, documents, tenant)
    create_markdown_artifact(
        _artifact(result), key="liftlock-index", description=f"{result.chunks} passages of {tenant}"
    )
    return result


def _artifact(result: IndexResult) -> str:
    rows = "\n".join(f"| {name} | {value} |" for name, value in asdict(result).items() if name != "skipped")
    skipped = "".join(f"\n- {reason}" for reason in result.skipped)
    return f"| what | number |\n|---|---|\n{rows}\n" + (f"\nSkipped:\n{skipped}\n" if skipped else "")
