"""The train stage in a process of its own, which a test kills: `python -m tests.training_process SPEC` prints the adapter."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tasks.dataset import read_dataset
from tasks.run import start_run
from tasks.settings import get_settings
from tasks.spec import load_release
from tasks.train import train_adapter


def main() -> None:
    spec = load_release(Path(sys.argv[1]))
    start_run(get_settings().state, Path(sys.argv[1]), spec.name, resume=True, fresh=False)
    adapter = train_adapter(read_dataset(spec), spec)
    print(json.dumps({"sha256": adapter.sha256, "run": adapter.run_id, "steps": len(adapter.curve)}))


if __name__ == "__main__":
    main()
