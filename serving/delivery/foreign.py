"""Another hand in a model's folder: its edit is never overwritten, and the release stops with the diff."""

from __future__ import annotations

from serving.delivery.change import diff, trailer
from serving.delivery.record import EMPTY, RECORD, RecordUnread, files_of, from_text
from serving.delivery.repository import Repository
from serving.rollout.plan import Blocked

SHOWN = 4000


class ForeignEdit(Blocked):
    """A file of the model's folder is not as Liftlock wrote it."""


def refuse_foreign(repository: Repository, head: str, folder: str, model: str, held: dict[str, str]) -> None:
    """`held` are the folder's files at `head`. Raises ForeignEdit.

    They are Liftlock's where they are what its record renders to, or as its last commit left them: an older Liftlock
    may have rendered otherwise, and a pull request may have been squashed.
    """
    if held in ({}, EMPTY) or _rendered(held):
        return
    own = repository.last_commit(head, folder, trailer(model))
    left = repository.files(own, folder) if own else {}
    if own and held == left:
        return
    last = repository.last_commit(head, folder)
    raise ForeignEdit(
        f"{folder} of {repository.remote.url} was edited by another hand, last in {repository.who(last or head)}; required: "
        "as Liftlock left it. Nothing was changed. Put what the edit wants into release.yaml, revert that commit, and run "
        f"this again.\n{diff(left, held, names=('liftlock', 'now'))[:SHOWN]}"
    )


def _rendered(held: dict[str, str]) -> bool:
    try:
        return held == files_of(from_text(held.get(RECORD, "")))
    except RecordUnread:
        return False
