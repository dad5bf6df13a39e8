"""The delivery target gitops: a step is a commit in the platform's repository, in force when Argo CD has it Synced and Healthy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from serving.delivery.argocd_wait import ArgoCd
from serving.delivery.change import Change, diff, trailer
from serving.delivery.foreign import refuse_foreign
from serving.delivery.record import RECORD, Record, files_of, from_text
from serving.delivery.repository import Repository


class Landing(Protocol):
    """How a change comes onto the branch."""

    def land(self, repository: Repository, folder: str, change: Change) -> str:
        """The commit of the branch that holds it: a new one, or the one that holds it already."""


@dataclass(frozen=True)
class GitEffect:
    """`folder` is the model's, below the repository's root; nothing outside it is touched."""

    repository: Repository
    folder: str
    landing: Landing
    argocd: ArgoCd

    def read(self) -> Record | None:
        """Raises RemoteRefused, RecordUnread."""
        held = self.repository.files(self.repository.fetch(), self.folder)
        return from_text(held[RECORD]) if RECORD in held else None

    def write(self, change: Change) -> None:
        """Raises ForeignEdit, RemoteRefused, DeliveryFailed."""
        revision = self.landing.land(self.repository, self.folder, change)
        self._await(change.model, revision, healthy=not change.undo)

    def confirm_gone(self) -> None:
        """The removal is in the branch before Argo CD has it. Raises RemoteRefused, DeliveryFailed."""
        model = self.folder.rpartition("/")[2]
        revision = self.repository.last_commit(self.repository.fetch(), self.folder, trailer(model))
        if revision:
            self._await(model, revision, healthy=False)

    def preview(self, change: Change) -> str:
        """Raises ForeignEdit."""
        head = self.repository.fetch()
        held = self.repository.files(head, self.folder)
        refuse_foreign(self.repository, head, self.folder, change.model, held)
        names = (f"a/{self.folder}", f"b/{self.folder}")
        return diff(held, files_of(change.record), names=names)

    def _await(self, model: str, revision: str, *, healthy: bool) -> None:
        self.argocd.wait(model, revision, lambda seen: self._holds(seen, revision), healthy=healthy)

    def _holds(self, seen: str, step: str) -> bool:
        if not self.repository.knows(seen):
            self.repository.fetch()
        return self.repository.contains(seen, step)
