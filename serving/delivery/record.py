"""What Liftlock keeps of a model where it is delivered to: the values that the manifests are rendered from. Pure.

In Git it is the file liftlock.json beside the manifests, on a cluster without GitOps a ConfigMap. kustomize does not read it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from pydantic import TypeAdapter, ValidationError

from serving.manifests.model import Desired, Member
from serving.manifests.render import render

RECORD = "liftlock.json"
EMPTY = {".gitkeep": "Nothing of this model is delivered. Argo CD cannot sync a folder that Git does not have.\n"}
"""With the only model's folder gone Argo CD says "app path does not exist", prunes nothing, and the refused engine keeps its GPU."""


class RecordUnread(ValueError):
    """liftlock.json is not Liftlock's, or of a version that this one does not read."""


@dataclass(frozen=True)
class Record:
    """`previous` was stable before the last release; it is what an undo brings back. None: there is nothing to go back to."""

    desired: Desired
    previous: Member | None = None

    def member(self, version: str) -> Member | None:
        """By its version, running or not."""
        known = (*self.desired.members, *((self.previous,) if self.previous else ()))
        return next((member for member in known if member.version == version), None)


def to_text(record: Record) -> str:
    """The same for a record that was made and for one that was read: whole seconds are read as 10.0."""
    read = TypeAdapter(Record).validate_python(asdict(record))
    return json.dumps(asdict(read), indent=2, sort_keys=True) + "\n"


def from_text(text: str) -> Record:
    """Raises RecordUnread."""
    try:
        return TypeAdapter(Record).validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RecordUnread(
            f"{RECORD} does not say what is delivered: {where}: {first['msg']}; restore it from the last commit of Liftlock"
        ) from None


def files_of(record: Record | None) -> dict[str, str]:
    """Everything in the model's folder; EMPTY where the model is not delivered any more. Raises NotStampable."""
    return {**render(record.desired), RECORD: to_text(record)} if record else EMPTY
