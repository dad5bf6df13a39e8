"""The model's files and their sha256, signed as OpenSSF model-signing does it, so that a placed folder can be checked.

An image signature covers layers; this covers what is in them, after a pull has unpacked it. The bundle is the file
`model.sig` of `model_signing verify key FOLDER`. Names are relative to `models/` of the image.
Source: sigstore/model-transparency, model_signing/_signing/signing.py (v1.1.1), predicate v1.0.
"""

import hashlib
import json
import os
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from serving.modelcar.envelope import EnvelopeInvalid, Statement, statement
from serving.modelcar.image import ROOT
from serving.modelcar.layer import Layer, Member, ModelChanged

CONTENT = "https://model_signing/signature/v1.0"
WORKERS = os.cpu_count() or 1
_CHUNK = 1 << 20
Blocks = Iterator[memoryview] | Iterator[bytes]


class ContentMismatch(RuntimeError):
    """A folder does not hold the files that were signed. Do not serve it."""


@dataclass(frozen=True)
class FileDigest:
    """A file of the model: its name below `models/`, and the sha256 of its bytes in hexadecimal."""

    name: str
    sha256: str


def content_statement(model: str, files: Iterable[FileDigest]) -> Statement:
    """`model` is a name for people; the subject's digest is the sha256 over all file digests in order of their names."""
    ordered = sorted(files, key=lambda file: PurePosixPath(file.name))
    root = hashlib.sha256(b"".join(bytes.fromhex(file.sha256) for file in ordered)).hexdigest()
    predicate = {
        "serialization": {"method": "files", "hash_type": "sha256", "allow_symlinks": False},
        "resources": [{"name": file.name, "algorithm": "sha256", "digest": file.sha256} for file in ordered],
    }
    return statement(CONTENT, model, root, predicate)


def content_files(claim: Statement) -> tuple[FileDigest, ...]:
    """The files a content statement names. Raises EnvelopeInvalid where it contradicts itself."""
    try:
        resources = json.loads(claim.data)["predicate"]["resources"]
        files = tuple(FileDigest(str(item["name"]), str(item["digest"])) for item in resources)
        joined = b"".join(bytes.fromhex(file.sha256) for file in files)
    except (KeyError, TypeError, ValueError) as error:
        raise EnvelopeInvalid("the content statement has no list of files with sha256 digests") from error
    if claim.subjects != (hashlib.sha256(joined).hexdigest(),) or len({file.name for file in files}) != len(files):
        raise EnvelopeInvalid("the content statement's files do not add up to its subject")
    return files


def hash_files(files: Mapping[str, Path], workers: int = WORKERS) -> tuple[FileDigest, ...]:
    """Reads each file once, `workers` at a time; keys are the names to give them."""
    largest_first = sorted(files, key=lambda name: -files[name].stat().st_size)
    with ThreadPoolExecutor(max_workers=max(1, workers)) as pool:
        return tuple(pool.map(lambda name: FileDigest(name, _sha256(files[name])), largest_first))


def hash_sources(layers: Sequence[Layer], workers: int = WORKERS) -> tuple[FileDigest, ...]:
    """The files that layers were built from, read once where they are. Their stat is the one that the layers' digests
    were taken under, so these are the same bytes. Raises ModelChanged where it is not.
    """
    members = [member for layer in layers for member in layer.members if _in_model(member.name)]
    held = [member for member in members if member.source or member.data is not None]
    with ThreadPoolExecutor(max_workers=max(1, workers)) as pool:
        return tuple(pool.map(_hash_member, sorted(held, key=lambda member: -member.content_size)))


def hash_layers(layers: Sequence[Callable[[], Blocks]], workers: int = WORKERS) -> tuple[FileDigest, ...]:
    """The files inside tar layers, each given as a function that streams (and verifies) its bytes.

    Raises what a stream raises, and EnvelopeInvalid for a layer that is no tar.
    """
    with ThreadPoolExecutor(max_workers=max(1, workers)) as pool:
        found = pool.map(lambda stream: tuple(_tar_files(stream())), layers)
        return tuple({file.name: file for files in found for file in files}.values())


def check_folder(folder: Path, files: Sequence[FileDigest], workers: int = WORKERS) -> None:
    """Raises ContentMismatch unless the folder holds these files and no others."""
    present = {path.relative_to(folder).as_posix(): path for path in _walk(folder)}
    wanted = {file.name: file.sha256 for file in files}
    for names, what in ((wanted.keys() - present.keys(), "lacks"), (present.keys() - wanted.keys(), "also holds")):
        if names:
            raise ContentMismatch(
                f"{folder} {what} {', '.join(sorted(names))}; the signed content differs; pull it again"
            )
    for file in hash_files(present, workers):
        if wanted[file.name] != file.sha256:
            raise ContentMismatch(
                f"{folder}/{file.name} has sha256 {file.sha256}, signed is {wanted[file.name]}; pull it again"
            )


def _walk(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        raise ContentMismatch(f"{folder} is not a folder; name the folder that the image was pulled into")
    for where, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = Path(where) / name
            if path.is_symlink():
                raise ContentMismatch(f"{path} is a link; a pulled model holds plain files; pull it again")
            if name in names:
                yield path


def _hash_member(member: Member) -> FileDigest:
    name, source = member.name.removeprefix(f"{ROOT}/"), member.source
    if source is None:
        return FileDigest(name, hashlib.sha256(member.data or b"").hexdigest())
    found = FileDigest(name, _sha256(source.path))
    now = source.path.stat()
    if (now.st_size, now.st_mtime_ns, now.st_ino) != (source.size, source.mtime_ns, source.inode):
        raise ModelChanged(f"{source.path} changed since the image was built; build the image again, then sign it")
    return found


def _in_model(name: str) -> bool:
    return name.startswith(f"{ROOT}/")


def _sha256(path: Path) -> str:
    with path.open("rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _tar_files(blocks: Blocks) -> Iterator[FileDigest]:
    stream = _Stream(blocks)
    try:
        with tarfile.open(fileobj=cast(BinaryIO, stream), mode="r|", bufsize=_CHUNK) as tar:
            for member in tar:
                content = tar.extractfile(member) if member.isreg() and _in_model(member.name) else None
                if content is not None:
                    digest = hashlib.sha256()
                    while block := content.read(_CHUNK):
                        digest.update(block)
                    yield FileDigest(member.name.removeprefix(f"{ROOT}/"), digest.hexdigest())
    except tarfile.TarError as error:
        raise EnvelopeInvalid(
            f"a layer is no plain tar ({error}); only images that Liftlock built can be read"
        ) from error
    finally:
        stream.drain()


class _Stream:
    """The layer as the file object that tarfile reads. Read to its end, so that the stream judges its own digest."""

    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks
        self._rest = b""

    def read(self, size: int) -> bytes:
        while len(self._rest) < size and (block := next(self._blocks, None)) is not None:
            self._rest += bytes(block)
        data, self._rest = self._rest[:size], self._rest[size:]
        return data

    def drain(self) -> None:
        for _ in self._blocks:
            pass
