"""What `liftlock fit` prints: verdicts, findings on manifests, and residuals. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from itertools import groupby
from typing import Any

from serving.fit.catalogue import GIB, MIB
from serving.fit.cluster import Checked, CheckedPod
from serving.fit.picture import draw
from serving.fit.report import FitReport
from serving.fit.residuals import Residual


def verdict_text(report: FitReport, model: str, learned: str | None) -> str:
    """The verdict with the bars of the parts, what would change it, and the command to serve with."""
    lines = [draw(report), ""]
    lines.append(
        f"longest that fits: {report.max_model_len_fits} tokens; "
        f"concurrency at {report.max_model_len}: {report.concurrency_at_max_model_len:.2f}x"
    )
    if report.changes:
        lines += ["", "changes, cheapest first (each alone):"]
        width = max(len(change.flag) for change in report.changes)
        lines += [f"  {change.flag:<{width}}  {change.effect_bytes / MIB:+10,.0f} MiB" for change in report.changes]
    lines += ["", f"vllm serve {model} {' '.join(report.flags)}"]
    return "\n".join([*lines, *(["", learned] if learned else [])])


def manifests_text(pods: Iterable[CheckedPod]) -> str:
    containers = [one for pod in pods for one in pod.containers]
    if not containers:
        return "no container asks for a GPU"
    found = [line for one in containers for line in _container_lines(one)]
    bad = sum(bool(one.findings) for one in containers)
    return "\n".join([*found, f"{len(containers)} checked, {bad} with findings"])


def manifests_document(pods: Iterable[CheckedPod]) -> dict[str, Any]:
    rows = [_container_document(one, pod.stamp) for pod in pods for one in pod.containers]
    return {"exit_code": 3 if any(row["findings"] for row in rows) else 0, "containers": rows}


def residual_table(residuals: Iterable[Residual]) -> str:
    """Actual minus predicted, in MiB."""
    lines = []
    for (version, gpu), rows in groupby(residuals, key=lambda row: (row.engine_version, row.gpu)):
        lines.append(f"vLLM {version} on {gpu}, actual minus estimate in MiB")
        lines.append(f"  {'part':<14} {'starts':>6} {'median':>9} {'least':>9} {'most':>9}")
        for row in rows:
            part = row.part.removesuffix("_bytes").replace("_", " ")
            sizes = "".join(f" {size / MIB:>+9,.0f}" for size in (row.median_bytes, row.least_bytes, row.most_bytes))
            lines.append(f"  {part:<14} {row.starts:>6}{sizes}")
    return "\n".join(lines)


def _container_lines(one: Checked) -> list[str]:
    verdict = "not judged" if one.report is None else one.report.verdict.replace("_", " ")
    room = "" if one.report is None else f", headroom {one.report.headroom_bytes / GIB:.2f} GiB"
    title = f"{one.file}: {one.kind} {one.name}, container {one.container}: {verdict}{room}"
    served = [f"  {one.model} on {one.gpu}"] if one.model and one.gpu else []
    return [
        title,
        *served,
        *(f"  finding: {text}" for text in one.findings),
        *(f"  note: {text}" for text in one.notes),
    ]


def _container_document(one: Checked, stamp: str | None) -> dict[str, Any]:
    report = None if one.report is None else one.report.document()
    return asdict(one) | {"report": report, "stamp": stamp}
