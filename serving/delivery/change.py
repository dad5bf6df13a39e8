"""One step as a commit says it: what changes, by what evidence, and the diff. Pure."""

from __future__ import annotations

import difflib
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from serving.delivery.record import Record
from serving.manifests.model import Desired, Member

TRAILER = "Liftlock-Model: "
WIDTH = 100
SUBJECT_WIDTH = 90


@dataclass(frozen=True)
class Change:
    """What shall be in force, and why. `record` None: the model goes.

    `undo`: the candidate may never have been ready, so no workload is waited for; stable has served all along.
    """

    model: str
    record: Record | None
    subject: str
    reasons: tuple[str, ...] = ()
    undo: bool = False

    @property
    def message(self) -> str:
        """The same for the same step, so that a repeated one is recognised by what it wrote."""
        subject = textwrap.shorten(f"{self.model}: {self.subject}", SUBJECT_WIDTH, placeholder=" …")
        said = [textwrap.fill(reason, WIDTH) for reason in self.reasons if reason]
        members = self.record.desired.members if self.record else ()
        proof = [line for member in members for line in evidence_lines(member)]
        trailers = [trailer(self.model)]
        if self.record and self.record.desired.candidate:
            trailers.append(f"Liftlock-Weight: {self.record.desired.weight}")
        parts = [subject, *said, "\n".join(["Evidence:", *proof]) if proof else "", "\n".join(trailers)]
        return "\n\n".join(part for part in parts if part) + "\n"


def trailer(model: str) -> str:
    return f"{TRAILER}{model}"


def evidence_lines(member: Member) -> list[str]:
    """The digests that say which bytes were proven."""
    return [f"  v{member.version}  modelcar: {member.modelcar}", *(
        f"  v{member.version}  {name}: {digest}" for name, digest in member.evidence
    )]  # fmt: skip


def split_said(desired: Desired) -> str:
    """candidate v4 at 10 %, stable v3 at 90 %."""
    if desired.candidate is None or desired.stable is None:
        only = desired.members[0]
        return f"v{only.version} alone"
    return (
        f"candidate v{desired.candidate.version} at {desired.weight} %, "
        f"stable v{desired.stable.version} at {100 - desired.weight} %"
    )


def diff(before: Mapping[str, str], after: Mapping[str, str], *, names: Sequence[str] = ("a", "b")) -> str:
    """Unified, by path; empty where nothing changes."""
    made: list[str] = []
    for path in sorted({*before, *after}):
        old, new = before.get(path, ""), after.get(path, "")
        made += difflib.unified_diff(
            old.splitlines(keepends=True), new.splitlines(keepends=True),
            f"{names[0]}/{path}" if path in before else "/dev/null", f"{names[1]}/{path}" if path in after else "/dev/null",
        )  # fmt: skip
    return "".join(made)
