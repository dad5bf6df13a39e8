"""The delivery targets gitops and kubernetes: what the rollout asks for, as changes of one record. The effect is passed in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from serving.delivery.change import Change, split_said
from serving.delivery.effect import DeliveryFailed, Effect
from serving.delivery.record import Record
from serving.delivery.steps import (
    beside,
    brought_back,
    member_called,
    promoted,
    weighed,
    without_candidate,
    word_of,
)  # fmt: skip
from serving.manifests.model import Desired

NOTHING = "nothing"  # stable's name where the model was never delivered


@dataclass(frozen=True)
class ClusterTarget:
    """`release` has the candidate and no stable; None for a rollout that is only brought to its end.

    `story` says why the next step may be taken: what was seen in the one before. `answers` returns when the gateway gives a
    version's own name to its engine: a route that is accepted takes effect a little later.
    """

    effect: Effect
    release: Desired | None
    story: Callable[[], Sequence[str]] = tuple
    answers: Callable[[str], None] = lambda _: None

    def stable(self, model: str) -> str:
        record = self.effect.read()
        if record is None or record.desired.stable is None:
            return NOTHING
        return word_of(record.desired, record.desired.stable)

    def place(self, model: str, candidate: str) -> None:
        """The candidate beside stable, with no request yet; returns when it is ready."""
        self.effect.write(self._placing(model))
        self.answers(candidate)

    def preview(self, model: str) -> str:
        """The diff of the first step. Changes nothing."""
        return self.effect.preview(self._placing(model))

    def placed(self) -> Desired:
        """What the first step asks the cluster for."""
        return self._beside().desired

    def _beside(self) -> Record:
        if self.release is None:
            raise DeliveryFailed("nobody says what the candidate is made of; deliver that version again")
        return beside(self.release, self.effect.read(), 0)

    def _placing(self, model: str) -> Change:
        record = self._beside()
        return Change(model, record, f"place {_said(record)}", tuple(self.story()))

    def weigh(self, model: str, candidate: str | None, weight: int) -> None:
        record = self._record(model)
        if record.desired.stable is not None:
            self._write(model, weighed(record, weight), _said(weighed(record, weight)))

    def promote(self, model: str, candidate: str) -> None:
        record = self._record(model)
        after = promoted(record)
        self._write(model, after, f"promote {_said(after)}")

    def restore(self, model: str, stable: str) -> None:
        """All requests to `stable`. Where it was removed already it comes back first, and gets them when it is ready."""
        record = self.effect.read()
        if record is None or stable == NOTHING:
            return
        if record.desired.stable is None or word_of(record.desired, record.desired.stable) != stable:
            earlier = member_called(record, stable)
            if earlier is None:
                raise DeliveryFailed(f"{stable} is not in the record of {model}; deliver that version again")
            record = brought_back(record, earlier)
            self._write(model, record, f"undo: bring back {_said(record)}")
            self.answers(stable)
        if record.desired.weight:
            self._write(model, weighed(record, 0), f"undo: {_said(weighed(record, 0))}", undo=True)
        else:  # the candidate may be what the cluster refuses, so nothing can be asked while it is there
            self._leave_stable(record)

    def drain(self, model: str, seconds: float) -> bool:
        """Nothing to wait for here: a member that is removed ends by its preStop hook, which waits for its last request."""
        return True

    def remove(self, candidate: str) -> None:
        record = self.effect.read()
        if record is None:
            self.effect.confirm_gone()
            return
        there = record.desired.candidate
        if there is None or word_of(record.desired, there) == candidate:
            self._leave_stable(record)

    def _leave_stable(self, record: Record) -> None:
        """Written even where the record says so already: it is kept before the cluster takes it, and that may have failed."""
        there, model = record.desired.candidate, record.desired.model
        if there:
            self._write(model, without_candidate(record), f"undo: remove v{there.version}", undo=True)
        else:
            self._write(model, record, f"undo: {_said(record)}", undo=True)

    def _record(self, model: str) -> Record:
        record = self.effect.read()
        if record is None:
            raise DeliveryFailed(f"{model} is not delivered any more; somebody removed it")
        return record

    def _write(self, model: str, record: Record | None, subject: str, *, undo: bool = False) -> None:
        self.effect.write(Change(model, record, subject, tuple(self.story()), undo))


def _said(record: Record) -> str:
    return split_said(record.desired)
