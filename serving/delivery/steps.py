"""From what is delivered now to what shall be, step by step. Pure: a record in, the next record out.

With strategy adapter the engine holds every adapter of the modelcar from the first step to the last, so weights move, versions
are promoted and undone without a restart.
"""

from __future__ import annotations

from dataclasses import replace

from serving.delivery.record import Record
from serving.manifests.model import Adapter, Desired, Member


def word_of(desired: Desired, member: Member) -> str:
    """By which a member is asked for directly, and what the rollout calls it."""
    if desired.strategy == "adapter" and member.adapter:
        return member.adapter.name
    return desired.name_of(member)


def member_called(record: Record, word: str) -> Member | None:
    """Running or not."""
    known = (*record.desired.members, *((record.previous,) if record.previous else ()))
    return next((member for member in known if word_of(record.desired, member) == word), None)


def beside(release: Desired, record: Record | None, weight: int) -> Record:
    """The release's candidate beside what is stable now. `release` has the candidate alone.

    Raises DesiredInvalid.
    """
    candidate = release.candidate
    if candidate is None:
        raise ValueError("a release without a candidate delivers nothing")
    if record is None or record.desired.stable is None:
        return Record(replace(release, weight=0))
    stable = _on_engine_of(release, record.desired.stable, candidate)
    return Record(replace(release, stable=stable, weight=weight), record.previous)


def _on_engine_of(release: Desired, stable: Member, candidate: Member) -> Member:
    """With strategy adapter one engine serves both, as the candidate wants it, each from its own modelcar."""
    if release.strategy != "adapter":
        return stable
    kept = replace(candidate, version=stable.version, adapter=stable.adapter, evidence=stable.evidence)
    return replace(kept, modelcar=stable.modelcar)


def weighed(record: Record, weight: int) -> Record:
    return replace(record, desired=replace(record.desired, weight=weight))


def promoted(record: Record) -> Record:
    """The candidate stays alone, and what was stable can be brought back."""
    desired = record.desired
    if desired.candidate is None:
        return record
    return Record(_alone(desired, desired.candidate, desired.stable), desired.stable)


def without_candidate(record: Record) -> Record | None:
    """stable stays alone; None: there was no stable, so nothing is left."""
    desired = record.desired
    if desired.stable is None:
        return None
    return Record(_alone(desired, desired.stable, desired.candidate), record.previous)


def brought_back(record: Record, earlier: Member) -> Record:
    """An earlier version beside the one that has every request, which it keeps until the earlier one is ready."""
    desired = record.desired
    served = desired.stable
    adapters = tuple(each for each in desired.idle_adapters if not earlier.adapter or each.name != earlier.adapter.name)
    now = _on_engine_of(desired, earlier, served) if served else earlier
    return Record(replace(desired, stable=now, candidate=served, weight=100, idle_adapters=adapters), record.previous)


def _alone(desired: Desired, stays: Member, goes: Member | None) -> Desired:
    idle: tuple[Adapter, ...] = desired.idle_adapters
    if desired.strategy == "adapter" and goes and goes.adapter:
        idle = (*idle, replace(goes.adapter, modelcar=goes.modelcar, signature=goes.signature))
    return replace(desired, stable=stays, candidate=None, weight=0, idle_adapters=idle)
