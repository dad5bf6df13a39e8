"""Run the release flow in this process against the Prefect server, and give back the run's document."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tasks.coherence import hold_coherent
from tasks.settings import get_settings
from tasks.stack.addresses import Addresses, export_client_settings


def run_release(spec: Path, where: Addresses, *, resume: bool, fresh: bool) -> dict[str, Any]:
    """The document of run.json. Raises what stops a release before its first stage.

    A gate that did not open is no exception here: the document has the verdict and the exit code.
    """
    settings = get_settings()
    hold_coherent(settings.state / "gateway")
    export_client_settings(where)
    os.environ["PREFECT_HOME"] = str(settings.state / "prefect")
    os.environ["PREFECT_LOGGING_LEVEL"] = "CRITICAL"  # this command tells errors itself, once
    os.environ["PREFECT_RESULTS_LOCAL_STORAGE_PATH"] = str(settings.state / "results")
    from flows.release import release
    from tasks.run import read_document

    state = release(spec_file=str(spec.absolute()), resume=resume, fresh=fresh, return_state=True)
    document = read_document(settings.state, spec.absolute(), os.getpid())
    if document is None or document["verdict"] is None:
        state.result()  # raises what stopped it
        raise RuntimeError("the release ended without a record; see `liftlock logs prefect`")
    return document
