"""Under which licence a model is, as its model card says it, and whether that is one we may ship.

Reads the YAML head of README.md (Hugging Face's model card metadata, keys `license` and `license_name`). It is the
word of whoever wrote the card: no licence text is compared.
"""

import re
from collections.abc import Collection, Iterable

from serving.modelcar.layer import Layer
from serving.modelcar.source import SourceFile

MAX_CARD_BYTES = 1 << 20
_HEAD = re.compile(r"\A---\s*\n(.*?)\n---\s*(?:\n|\Z)", re.DOTALL)
_FIELD = re.compile(r"^(license|license_name):[ \t]*[\"']?([^\s\"'#]+)", re.MULTILINE)


class LicenceNotAllowed(ValueError):
    """The model's licence is not on the list; another model, or a longer list, is a person's decision."""


def model_card(layers: Iterable[Layer]) -> SourceFile | None:
    """The base model's README.md."""
    members = (member for layer in layers for member in layer.members)
    return next((member.source for member in members if member.name == "models/README.md" and member.source), None)


def licence_of(card: SourceFile | None) -> str | None:
    """In lower case, such as `apache-2.0`; None where there is no card or it names none."""
    if card is None or card.size > MAX_CARD_BYTES:
        return None
    head = _HEAD.match(card.path.read_text("utf-8", "replace").replace("\r\n", "\n"))
    fields = dict(_FIELD.findall(head[1])) if head else {}
    licence = fields.get("license")
    licence = fields.get("license_name", licence) if licence == "other" else licence
    return licence.lower() if licence else None


def check_licence(licence: str | None, allowed: Collection[str]) -> None:
    """Does nothing where the list is empty. Raises LicenceNotAllowed."""
    if allowed and licence not in {name.lower() for name in allowed}:
        raise LicenceNotAllowed(
            f"the model's licence is {licence or 'not named in its README.md'}; allowed are {', '.join(sorted(allowed))}; "
            "take another model or allow this licence"
        )
