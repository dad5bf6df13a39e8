"""One push or pull of bench_modelcar.py in a process of its own: what it took, as JSON, beyond what the imports took.

Usage: modelcar_worker.py push MODEL TARGET CACHE [ADAPTER [MOUNT_FROM]] | pull IMAGE FOLDER
"""

import json
import re
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from serving.modelcar import DigestCache, model_layers, open_store, parse_reference, push_image
from serving.modelcar.pull import pull


def peak_kib() -> int:
    """The process's own peak: getrusage's would hold the parent's from before exec."""
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])  # type: ignore[index]


def push(model: str, target: str, cache: str, adapter: str = "", mount_from: str = "") -> dict[str, object]:
    name = "tuned" if adapter else None
    layers = model_layers(Path(model), Path(adapter) if adapter else None, name)
    reference = parse_reference(target)
    with open_store(reference) as store:
        mounts = [mount_from] if mount_from else []
        result = push_image(layers, {}, store, reference.tag, cache=DigestCache(Path(cache)), mount_from=mounts)
    return {"bytes_sent": result.bytes_sent, "digest": result.digest, "mounted": result.blobs_mounted}


def fetch(image: str, folder: str) -> dict[str, object]:
    reference = parse_reference(image)
    with open_store(reference) as store:
        return {"bytes_placed": pull(store, reference.wanted, Path(folder)).bytes_placed}


before, cpu, began = peak_kib(), time.process_time(), time.perf_counter()
outcome = {"push": push, "pull": fetch}[sys.argv[1]](*sys.argv[2:])
print(
    json.dumps(
        outcome
        | {
            "seconds": time.perf_counter() - began,
            "cpu_seconds": time.process_time() - cpu,
            "memory_mib": (peak_kib() - before) / 1024,
        }
    )
)
