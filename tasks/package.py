"""What packing would refuse, told before anything starts: the licence of the base, and a shell that cannot be had."""

from __future__ import annotations

from pathlib import Path

from serving.modelcar import model_layers
from serving.modelcar.licence import check_licence, licence_of, model_card
from tasks.settings import Settings
from tasks.shell import shell_of
from tasks.spec import Release


def check_package(spec: Release, base: Path, settings: Settings) -> None:
    """Raises LicenceNotAllowed, ShellMissing, ModelRefused."""
    shell_of(spec, settings)
    if spec.modelcar.licences:
        check_licence(licence_of(model_card(model_layers(base, None, None))), spec.modelcar.licences)
