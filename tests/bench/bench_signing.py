"""make bench-signing: how fast a model of four shards is signed and verified, against plain sha256 on the same cores.

Plain sha256 reads each shard once with hashlib, as many at a time as there are cores, like what it is compared with.
"sign" hashes the model's files for the content statement, makes all statements and signs; the layers' digests are known
from the build. "sign from the image" has only the image, so it hashes each byte twice: the layer and the file in it.
Every figure is the best of the repeats, with warm file caches. model_signing is the OpenSSF tool, as a process.
It wants a quiet machine. Exit 1 where signing or verifying is below 80 % of plain sha256.

    bench_signing.py [--gib 1] [--repeats 3] [--short]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from serving.modelcar import model_layers, open_store, parse_reference, write_layout
from serving.modelcar.content import WORKERS, check_folder, content_files, hash_sources
from serving.modelcar.envelope import parse_bundle, parse_statement
from serving.modelcar.keys import new_key, write_key_pair
from serving.modelcar.referrers import list_referrers, read_attachment
from serving.modelcar.sign import sign
from serving.modelcar.signed import CONTENT_TYPE
from serving.modelcar.verify import verify
from tests.bench.figures import Figure, end, spread_of
from tests.bench.peers_signing import install

ROOT = Path(__file__).resolve().parents[2]

SHARDS = 4
GOAL = 0.8
PEERS = ROOT / ".toolchain" / "peers-signing"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gib", type=float, default=1.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--short", action="store_true", help="a quarter of the bytes")
    asked = parser.parse_args()
    asked.gib *= 0.25 if asked.short else 1
    install(PEERS)
    with tempfile.TemporaryDirectory(prefix="bench-signing-") as temporary:
        repeats = run(Path(temporary), int(asked.gib * 2**30), asked.repeats)
    size = int(asked.gib * 2**30)
    seconds = {name: min(values) for name, values in repeats.items()}
    plain = seconds["sha256"]
    print(f"{asked.gib:g} GiB in {SHARDS} shards, {WORKERS} cores, best of {asked.repeats}")
    print(f"{'':24}{'seconds':>9}{'MiB/s':>9}{'of sha256':>11}")
    for name, value in seconds.items():
        print(f"{name:24}{value:9.3f}{size / 2**20 / value:9.0f}{plain / value:11.0%}")
    figures = [
        Figure(f"{name}, speed as a share of plain sha256", plain / seconds[name], "", "higher", GOAL)
        for name in ("sign", "verify", "verify folder")
    ]
    beside = {name: seconds[name] for name in ("sha256", "model_signing verify")}
    figures.append(Figure("verify", seconds["verify"], "s", "lower", None, spread_of(repeats["verify"]), beside))
    return end("signing", figures, short=asked.short, details={"seconds": repeats})


def run(work: Path, size: int, repeats: int) -> dict[str, list[float]]:
    base = make_model(work / "base", size)
    shards = sorted(base.glob("*.safetensors"))
    layers = model_layers(base, None, None)
    layout = work / "layout"
    image = write_layout(layout, layers, {"dev.liftlock.base-model": "bench"}, "bench")
    key, where = new_key(), parse_reference(f"oci:{layout}:bench@{image.digest}")
    write_key_pair(key, work / "bench", b"")
    with open_store(where) as store:
        jobs: dict[str, Callable[[], object]] = {
            "sha256": lambda: plain_sha256(shards),
            "sign": lambda: sign(store, image.digest, key, "bench/model", files=hash_sources(layers), fresh=True),
            "verify": lambda: verify(where, key.public, store),
            "sign from the image": lambda: sign(store, image.digest, key, "bench/model", fresh=True),
        }
        seconds = timed(jobs, repeats)
        (entry,) = [one for one in list_referrers(store, image.digest) if one["artifactType"] == CONTENT_TYPE]
        signature = read_attachment(store, image.digest, entry).data
    files = content_files(parse_statement(parse_bundle(signature)[0].payload))
    (work / "model.sig").write_bytes(signature)
    tool = str(PEERS / "bin" / "model_signing")
    theirs = [tool, "verify", "key", "base", "--public_key", "bench.pub", "--signature", "model.sig"]
    return seconds | timed(
        {
            "verify folder": lambda: check_folder(base, files),
            "model_signing verify": lambda: subprocess.run(theirs, cwd=work, check=True, capture_output=True),
        },
        repeats,
    )


def timed(jobs: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each repeat, in turns, so that a slow minute of the machine meets all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(repeats):
        for name, job in jobs.items():
            began = time.perf_counter()
            job()
            seconds[name].append(round(time.perf_counter() - began, 4))
    return seconds


def plain_sha256(files: list[Path]) -> None:
    def read(path: Path) -> str:
        with path.open("rb", buffering=0) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    with ThreadPoolExecutor(max_workers=WORKERS) as pool:
        list(pool.map(read, files))


def make_model(folder: Path, size: int) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama"}')
    each = size // SHARDS
    for number in range(1, SHARDS + 1):
        header = json.dumps({f"w{number}": {"dtype": "U8", "shape": [each], "data_offsets": [0, each]}}).encode()
        with (folder / f"model-{number:05}-of-{SHARDS:05}.safetensors").open("wb") as file:
            file.write(struct.pack("<Q", len(header)) + header)
            for start in range(0, each, 1 << 24):
                file.write(os.urandom(min(1 << 24, each - start)))
    return folder


if __name__ == "__main__":
    sys.exit(main())
