"""A step pushed straight onto the branch. Where somebody else was faster, it is made again on top of theirs."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

from serving.delivery.change import Change
from serving.delivery.effect import DeliveryFailed
from serving.delivery.foreign import refuse_foreign
from serving.delivery.record import files_of
from serving.delivery.repository import PushRejected, Repository

LONGEST_REST_SECONDS = 2.0


@dataclass(frozen=True)
class Push:
    """History stays linear: a commit is always made on the branch's last one."""

    attempts: int = 12

    def land(self, repository: Repository, folder: str, change: Change) -> str:
        """Raises ForeignEdit, RemoteRefused, DeliveryFailed."""
        said = ""
        for attempt in range(self.attempts):
            head = repository.fetch()
            commit = made(repository, head, folder, change)
            if commit is None:
                return repository.last_commit(head, folder) or head
            try:
                repository.push(commit, repository.remote.branch)
                return commit
            except PushRejected as rejected:
                said = str(rejected)
                time.sleep(random.uniform(0, min(0.1 * 2**attempt, LONGEST_REST_SECONDS)))
        branch = repository.remote.branch
        raise DeliveryFailed(
            f"{branch} of {repository.remote.url} refused {self.attempts} pushes: {said}; if it is protected, set "
            "LIFTLOCK_PLATFORM_LANDING=pull_request"
        )


def made(repository: Repository, head: str, folder: str, change: Change) -> str | None:
    """The step as a commit on `head`; None where the folder holds it already. Raises ForeignEdit."""
    held, wanted = repository.files(head, folder), files_of(change.record)
    if held == wanted:
        return None
    refuse_foreign(repository, head, folder, change.model, held)
    return repository.commit(head, folder, wanted, change.message)
