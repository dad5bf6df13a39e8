"""The shell layer: Debian's static busybox, so that KServe's modelcar sidecar finds `sh`, `ln`, `ls` and `sleep`.

KServe runs `sh -c "ln -sf /proc/$$/root/models /mnt/models && sleep infinity"` inside the image as uid 1010
(kserve, pkg/utils/storage.go). Kubernetes image volumes and `oci+fetch://` need no shell. The bytes are pinned: another
busybox would be another digest, so it is refused.
"""

import hashlib
import tempfile
from pathlib import Path

from serving.modelcar.debian import PackageMissing, fetch_program
from serving.modelcar.layer import Layer, Member

PACKAGE = "busybox-static"
VERSION = "1:1.35.0-4+deb12u1+b1"
SHA256 = "3d9f2889d6782537624a4e1a10e68a2ddd53e0ee8bac02676f27308f42ec6bf6"
TITLE = "shell"
COMMANDS = ("[", "cat", "cp", "echo", "ln", "ls", "mkdir", "sh", "sha256sum", "sleep", "test", "true")
_MAX_BYTES = 8 << 20
_SUITE = "bookworm"
_INSIDE = "bin/busybox"


class ShellMissing(ValueError):
    """There is no busybox with the pinned bytes; fetch it, or build an image without a shell."""


def shell_layer(busybox: Path) -> Layer:
    """Raises ShellMissing where the file is not the pinned one."""
    data = _pinned(busybox)
    links = [Member(f"bin/{name}", link="busybox") for name in COMMANDS]
    program = Member("bin/busybox", data=data, executable=True)
    return Layer(TITLE, {}, (program, *links, Member("mnt")))


def fetch_shell(destination: Path) -> None:
    """Downloads the pinned package from this machine's Debian mirror and keeps its busybox, complete or not at all.

    Raises ShellMissing, also where this machine has no apt-get or its archive has another version.
    """
    destination.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=destination.parent, prefix=".liftlock-shell-") as temporary:
        found = Path(temporary) / "busybox"
        try:
            fetch_program(PACKAGE, _INSIDE, found, suite=_SUITE, version=VERSION)
        except PackageMissing as error:
            raise ShellMissing(
                f"{error}; take {PACKAGE} {VERSION} from a Debian 12 machine and name its busybox"
            ) from error
        _pinned(found)
        found.replace(destination)


def _pinned(busybox: Path) -> bytes:
    if not busybox.is_file() or busybox.stat().st_size > _MAX_BYTES:
        raise ShellMissing(
            f"{busybox} is no busybox; fetch {PACKAGE} {VERSION} (Debian 12, amd64) or build without a shell"
        )
    data = busybox.read_bytes()
    observed = hashlib.sha256(data).hexdigest()
    if observed != SHA256:
        raise ShellMissing(
            f"{busybox} has sha256 {observed}, not {SHA256} of {PACKAGE} {VERSION} (Debian 12, amd64); the image's digest "
            "would depend on this machine; fetch that version or build without a shell"
        )
    return data
