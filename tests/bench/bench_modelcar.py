"""make bench-modelcar: build and push a model in four shards to a real registry on loopback, beside olot+skopeo and oras-py.

Prints wall, CPU, peak memory, bytes and temporary disk in one run, and what the limits are: a sha256 pass, a loopback copy. Every figure is
the best of the repeats, each against an empty registry after a sync. Walls in the table are of whole processes; the ratio to the limits, the
second push, the adapter release and the pull are judged without Python's start, as the limits are measured.

Memory of Liftlock is the peak of its own process above what it had
after its imports; of the others the peak of their process. It wants a quiet machine with two free cores, docker-registry, skopeo and curl.

    bench_modelcar.py [--gib 1] [--repeats 3] [--no-rivals] [--short] [--registry PROGRAM] [--work FOLDER]
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from serving.modelcar import layer as _layer
from serving.modelcar import open_store, parse_reference
from serving.modelcar.push import push_image
from tests.bench.figures import Figure, end, spread_of
from tests.bench.modelcar_limits import copy_seconds, sha256_seconds
from tests.bench.modelcar_model import make_adapter, make_model
from tests.bench.modelcar_registry import describe, program, running
from tests.bench.modelcar_rivals import ORAS, Cost, install, measure, used

WORKER = str(Path(__file__).with_name("modelcar_worker.py"))
GOALS = {
    "push_over_limit": ("push, times sha256 and a copy", "", 2.5),
    "memory_mib": ("memory of a push", "MiB", 64.0),
    "temporary_disk_bytes": ("temporary disk of a push", "bytes", 1 << 20),
    "second_push_seconds": ("second push", "s", 0.3),
    "adapter_extra_bytes": ("bytes of an adapter's release beside the adapter", "bytes", 64 << 10),
    "adapter_seconds": ("an adapter's release", "s", 1.0),
    "pull_over_download": ("pull, times curl's download", "", 1.15),
}
FASTER_THAN_OLOT = 2.0


class Bench:
    def __init__(self, work: Path, gib: float, repeats: int, registry: str) -> None:
        self.work, self.repeats, self.registry = work, repeats, registry
        self.model = make_model(work / "model", gib)
        self.adapter = make_adapter(work / "adapter")
        self.files = sorted(path for path in self.model.iterdir())
        self.rows: list[tuple[str, str, str, str, str, str]] = []
        self.spread: dict[str, tuple[float, float]] = {}

    def scratch(self) -> Path:
        """A new empty folder; everything written to its file system before is on the disk."""
        folder = Path(tempfile.mkdtemp(prefix="scratch-", dir=self.work))
        subprocess.run(["sync", "-f", str(folder)], check=True)
        return folder

    def best(self, once: Callable[[], tuple[Cost, dict[str, Any]]]) -> tuple[Cost, dict[str, Any]]:
        return min((once() for _ in range(self.repeats)), key=lambda pair: pair[0].seconds)

    def row(self, name: str, cost: Cost, memory_mib: float, moved: int) -> None:
        mib = [f"{moved / 2**20:,.1f}", f"{cost.disk_bytes / 2**20:,.1f}"]
        self.rows.append((name, f"{cost.seconds:.2f}", f"{cost.cpu_seconds:.2f}", f"{memory_mib:,.0f}", *mib))

    def worker(self, *arguments: str) -> tuple[Cost, dict[str, Any]]:
        folder = self.scratch()
        cost = measure([sys.executable, WORKER, *arguments], folder)
        shutil.rmtree(folder)
        said = json.loads(cost.output.strip().splitlines()[-1])
        return Cost(cost.seconds, cost.cpu_seconds, cost.peak_mib, cost.disk_bytes - len(cost.output), ""), said

    def liftlock(self) -> dict[str, float]:
        def first() -> tuple[Cost, dict[str, Any]]:
            with running(self.registry, self.work) as (address, _):
                return self.worker(
                    "push", str(self.model), f"{address}/models/base:v1", str(self.work / "no" / "cache")
                )

        def forget() -> tuple[Cost, dict[str, Any]]:
            shutil.rmtree(self.work / "no", ignore_errors=True)
            return first()

        cost, said = self.best(forget)
        self.row("liftlock build+push", cost, said["memory_mib"], said["bytes_sent"])
        return {
            "push_seconds": said["seconds"],
            "push_process_seconds": cost.seconds,
            "memory_mib": said["memory_mib"],
            "temporary_disk_bytes": cost.disk_bytes,
        }

    def releases(self) -> dict[str, float]:
        """A second push of the same model, an adapter after its base, and the way back."""
        cache = str(self.work / "cache.json")
        with running(self.registry, self.work) as (address, _):
            base = f"{address}/models/base:v1"
            time.sleep(2.1)  # the digest cache does not trust files this young
            self.worker("push", str(self.model), base, cache)
            again = self.best(lambda: self.worker("push", str(self.model), base, cache))
            self.row("liftlock second push", again[0], again[1]["memory_mib"], again[1]["bytes_sent"])
            adapters = [self._adapter_release(address, cache, number) for number in range(self.repeats)]
            released = min(adapters, key=lambda pair: pair[0].seconds)
            self.row("liftlock adapter release", released[0], released[1]["memory_mib"], released[1]["wire_bytes"])
            pulls = [self._pull(base, number) for number in range(self.repeats)]
            pulled = min(pulls, key=lambda pair: pair[1]["seconds"])
            self.spread["adapter_seconds"] = spread_of([said["seconds"] for _, said in adapters])
            self.row("liftlock pull", pulled[0], pulled[1]["memory_mib"], pulled[1]["bytes_placed"])
            downloads = {
                name: min(self._download(base, extra) for _ in range(self.repeats))
                for name, extra in (("curl, one after another", ()), ("curl, four at a time", ("-Z",)))
            }
        for name, seconds in downloads.items():
            self.rows.append((name, f"{seconds:.2f}", "", "", f"{used(self.model) / 2**20:,.1f}", ""))
        return {
            "second_push_seconds": again[1]["seconds"],
            "second_push_process_seconds": again[0].seconds,
            "adapter_seconds": released[1]["seconds"],
            "adapter_extra_bytes": released[1]["wire_bytes"] - used(self.adapter),
            "pull_seconds": pulled[1]["seconds"],
            "pull_memory_mib": pulled[1]["memory_mib"],
            "pull_over_download": pulled[1]["seconds"] / downloads["curl, one after another"],
            "pull_over_parallel_download": pulled[1]["seconds"] / downloads["curl, four at a time"],
        }

    def _adapter_release(self, address: str, cache: str, number: int) -> tuple[Cost, dict[str, Any]]:
        """To a repository that has nothing yet: the base's layers are mounted, and every byte is counted on the wire."""
        from tests.fix_faulty_proxy import FaultyProxy

        with FaultyProxy(address) as proxy:
            target = f"{proxy.address}/models/tuned-{number}:v1"
            cost, said = self.worker("push", str(self.model), target, cache, str(self.adapter), "models/base")
            return cost, said | {"wire_bytes": proxy.bytes_up}

    def _pull(self, image: str, number: int) -> tuple[Cost, dict[str, Any]]:
        folder = self.work / f"pulled-{number}"
        result = self.worker("pull", image, str(folder))
        shutil.rmtree(folder)
        return result

    def _download(self, image: str, extra: tuple[str, ...]) -> float:
        reference = parse_reference(image)
        with open_store(reference) as store:
            layers = store.get_manifest(reference.wanted).json()["layers"]
        folder = self.scratch()
        url = f"http://{reference.host}/v2/{reference.repository}/blobs"
        command = ["curl", "-sf", *extra]
        for number, layer in enumerate(layers):
            command += ["-o", str(number), f"{url}/{layer['digest']}"]
        seconds = measure(command, folder).seconds
        shutil.rmtree(folder)
        return seconds

    def olot(self, python: Path) -> float:
        """olot writes a layout with a copy of the model, skopeo sends it without recompressing."""

        def once() -> tuple[Cost, dict[str, Any]]:
            folder = self.scratch()
            _base_layout(folder / "image")
            built = measure([str(python.parent / "olot"), "image", *map(str, self.files)], folder)
            with running(self.registry, self.work) as (address, storage):
                target = f"docker://{address}/models/olot:v1"
                options = ["--preserve-digests", "--dest-tls-verify=false", "--insecure-policy"]
                sent = measure(["skopeo", *options[2:], "copy", *options[:2], "oci:image:latest", target], folder)
                moved = used(storage)
            shutil.rmtree(folder)
            both = Cost(
                built.seconds + sent.seconds,
                built.cpu_seconds + sent.cpu_seconds,
                max(built.peak_mib, sent.peak_mib),
                max(built.disk_bytes, sent.disk_bytes),
                "",
            )
            return both, {"moved": moved}

        cost, said = self.best(once)
        self.row("olot + skopeo", cost, cost.peak_mib, said["moved"])
        return cost.seconds

    def oras(self, python: Path) -> float:
        def once() -> tuple[Cost, dict[str, Any]]:
            folder = self.scratch()
            with running(self.registry, self.work) as (address, storage):
                command = [str(python), "-c", ORAS, f"{address}/models/oras:v1", *map(str, self.files)]
                cost, moved = measure(command, folder), used(storage)
            shutil.rmtree(folder)
            return cost, {"moved": moved}

        cost, said = self.best(once)
        self.row("oras-py (raw files)", cost, cost.peak_mib, said["moved"])
        return cost.seconds


def _base_layout(folder: Path) -> None:
    """What olot puts its layers on: an image with one small layer."""
    (marker := folder.parent / "marker").write_text("base")
    info = marker.stat()
    source = _layer.SourceFile("marker", marker, info.st_size, info.st_mtime_ns, info.st_ino)
    reference = parse_reference(f"oci:{folder}:latest")
    with open_store(reference) as store:
        push_image([_layer.Layer("base", {"etc/marker": source})], {}, store, "latest")


def figures(found: dict[str, float], spread: dict[str, tuple[float, float]]) -> list[Figure]:
    said = [
        Figure(GOALS[name][0], found[name], GOALS[name][1], "lower", GOALS[name][2], spread.get(name)) for name in GOALS
    ]
    beside = {f"{name} (limit)": found[f"{name}_seconds"] for name in ("sha256", "copy")}
    beside |= {name: found[name] for name in ("olot_skopeo_seconds", "oras_py_seconds") if name in found}
    said.append(Figure("push, whole process", found["push_process_seconds"], "s", beside=beside, noise=0.25))
    if "times_faster_than_olot" in found:
        said.append(
            Figure("times as fast as olot + skopeo", found["times_faster_than_olot"], "", "higher", FASTER_THAN_OLOT)
        )
    return said


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--gib", type=float, default=1.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--no-rivals", action="store_true")
    parser.add_argument("--short", action="store_true", help="a quarter of the bytes, without the rivals")
    parser.add_argument("--registry", default=program(), help="the docker-registry to run")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()))
    options = parser.parse_args()
    wanted = {"docker-registry": options.registry, "skopeo": shutil.which("skopeo"), "curl": shutil.which("curl")}
    missing = [name for name, found in wanted.items() if found is None]
    if missing:
        print(f"bench-modelcar needs {', '.join(missing)}; install them (Debian has packages)", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="bench-modelcar-", dir=options.work) as work:
        gib = options.gib / 4 if options.short else options.gib
        bench = Bench(Path(work), gib, options.repeats, options.registry)
        found = run(bench, rivals=not (options.no_rivals or options.short))
    print(describe(options.registry))
    return end("modelcar", figures(found, bench.spread), short=options.short, details={"gib": gib, **found})


def run(bench: Bench, rivals: bool) -> dict[str, float]:
    sha256_seconds(bench.files)  # into the page cache, for everyone
    sha = min(sha256_seconds(bench.files) for _ in range(bench.repeats))
    copy = min(copy_seconds(bench.files, bench.work / "copy") for _ in range(bench.repeats))
    bench.rows.append(("sha256 of the bytes", f"{sha:.2f}", f"{sha:.2f}", "", "0.0", "0.0"))
    size = f"{used(bench.model) / 2**20:,.1f}"
    bench.rows.append(("loopback copy", f"{copy:.2f}", "", "", size, "0.0"))
    found = {"sha256_seconds": sha, "copy_seconds": copy, **bench.liftlock(), **bench.releases()}
    found["push_over_limit"] = found["push_seconds"] / (sha + copy)
    if rivals:
        python = install()
        found["olot_skopeo_seconds"] = bench.olot(python)
        found["oras_py_seconds"] = bench.oras(python)
        found["times_faster_than_olot"] = found["olot_skopeo_seconds"] / found["push_process_seconds"]
    print(f"{'':26}{'wall s':>8}{'CPU s':>8}{'peak MiB':>10}{'sent MiB':>10}{'temp MiB':>10}")
    for name, *cells in bench.rows:
        print(f"{name:26}" + "".join(f"{cell:>{width}}" for cell, width in zip(cells, (8, 8, 10, 10, 10), strict=True)))
    return found


if __name__ == "__main__":
    sys.exit(main())
