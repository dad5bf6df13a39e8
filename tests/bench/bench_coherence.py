"""`make bench-coherence`: 1,000 manifests through `liftlock coherence`, beside PyYAML's loading of the same files. Asked: at most 3 s.

Exit 1 where the limit is missed.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from tests.bench.figures import Figure, end, flags, spread_of
from tests.fix_coherence import coherent, written

ROOT = Path(__file__).resolve().parents[2]
ASKED = 3.0
MANIFESTS = 1000


def fill(folder: Path, manifests: int = MANIFESTS) -> int:
    """Files of four engines, Services and routes each, beside the coherent chain; how many manifests these are."""
    written(folder, coherent())
    documents = coherent()["manifests.yaml"][:4]
    text = yaml.safe_dump_all(documents, sort_keys=False)
    for index in range(manifests // len(documents)):
        (folder / f"more-{index}.yaml").write_text(
            text.replace("name: llm", f"name: llm-{index}").replace("app: llm", f"app: llm-{index}")
        )
    return len(documents) * (manifests // len(documents))


def main() -> int:
    flags(__doc__)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        count = fill(folder)
        argv = [sys.executable, "-m", "flows.cli", "coherence", str(folder), "--json"]
        times = []
        for _ in range(3):
            began = time.monotonic()
            done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
            times.append(time.monotonic() - began)
        began = time.monotonic()
        for file in folder.glob("*.yaml"):
            list(yaml.load_all(file.read_text(), Loader=yaml.SafeLoader))
        plain = time.monotonic() - began
    assert done.returncode == 0, done.stdout + done.stderr
    best = min(times)
    print(f"{'':28}{'seconds':>9}{'ratio':>8}")
    print(f"{'liftlock coherence, whole':28}{best:9.2f}{1:8.2f}")
    print(f"{'PyYAML SafeLoader, load only':28}{plain:9.2f}{plain / best:8.2f}")
    print(f"{'asked at most':28}{ASKED:9.2f}{ASKED / best:8.2f}")
    beside = {"PyYAML SafeLoader, load only": plain}
    return end("coherence", [Figure(f"{count} manifests", best, "s", "lower", ASKED, spread_of(times), beside)])


if __name__ == "__main__":
    sys.exit(main())
