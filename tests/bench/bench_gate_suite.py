"""make bench-gate-suite: the gate in blocks on the real suite and engine, beside plain lm-eval on all items of the candidate.

Three comparisons: the good adapter with the base, the mislabelled one with the good, and the good one with itself. Each is
asked afresh, baseline included. Without options both specs of evals/ticket_router are released first (from the cache where
nothing has changed). With --endpoint, --good and --bad an engine that serves the adapters already is asked, and nothing is
released. Ends with one line of JSON; exit code 1 where a verdict is another one.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evals.evaluate import Side, Tools, evaluate_in_blocks
from evals.gate import GatePolicy, decide, plan_of_suite
from evals.lm_eval_runner import Setting
from evals.suite import load_items, resolve_task
from serving.engine import load_adapter
from tasks.asked import CONCURRENCY, promptfoo_of
from tasks.base_model import resolve_base
from tasks.evaluate import suite_of
from tasks.judge import policy_of
from tasks.settings import get_settings
from tasks.spec import Release, load_release
from tasks.stack.addresses import addresses
from tasks.train import ADAPTER_FILES
from tests.bench.figures import Figure, end

ROOT = Path(__file__).resolve().parents[2]
SUITE = ROOT / "evals" / "ticket_router"
LIFTLOCK = [sys.executable, "-m", "flows.cli"]
ENDS = {"good": 0, "bad": 3}  # exit codes of the two releases


@dataclass(frozen=True)
class Served:
    """An engine and the names of the two adapters there."""

    base_url: str
    good: str
    bad: str


@dataclass(frozen=True)
class Asked:
    """One comparison. `verdicts` are the right ones."""

    what: str
    candidate: str
    baseline: str
    policy: GatePolicy
    verdicts: tuple[str, ...]


def main() -> int:
    parser = argparse.ArgumentParser()
    for option in ("endpoint", "good", "bad"):
        parser.add_argument(f"--{option}")
    chosen = parser.parse_args()
    spec = load_release(SUITE / "release.yaml", ("gate", "dataset.test"))
    given = chosen.endpoint and chosen.good and chosen.bad
    served = Served(chosen.endpoint, chosen.good, chosen.bad) if given else _release_both()
    base = resolve_base(spec.base_model, get_settings())
    first, later = (replace(policy_of(spec, version), min_case_pass_rate=0.0) for version in (None, "1"))
    comparisons = (
        Asked("good against base", served.good, base.name.lower(), first, ("passed",)),
        Asked("mislabelled against good", served.bad, served.good, later, ("rejected",)),
        # superior: an adapter that was no better than itself would pass a lenient non_inferior rule
        Asked("good against itself", served.good, served.good, replace(first, floor=0.0), ("inconclusive",)),
    )
    with tempfile.TemporaryDirectory(prefix="liftlock-bench-") as folder:
        plain, items = _plain(spec, served, base, Path(folder) / "plain")
        print(f"plain lm-eval, {items} items of the candidate alone: {plain:.1f} s\n")
        print(
            f"{'both sides in blocks':26} {'verdict':13} {'difference':>10} {'items':>7} {'seconds':>8} {'ratio':>6}",
            flush=True,
        )
        rows = [
            _compare(one, spec, served.base_url, base, Path(folder) / str(n), plain)
            for n, one in enumerate(comparisons)
        ]
    figures = [Figure("wrong verdicts", sum(not row["right"] for row in rows), "", "lower", 0)]
    figures += [
        Figure(
            f"{row['what']}, both sides",
            row["seconds"],
            "s",
            beside={"plain lm-eval, candidate alone": plain},
            noise=0.25,
        )
        for row in rows
    ]
    return end("gate-suite", figures, details={"items": items, "rows": rows})


def _release_both() -> Served:
    settings, found = get_settings(), dict[str, str]()
    for name, file in (("good", "release.yaml"), ("bad", "release-mislabelled.yaml")):
        done = subprocess.run([*LIFTLOCK, "release", str(SUITE / file)], cwd=ROOT, check=False)
        if done.returncode != ENDS[name]:
            raise SystemExit(f"the release of {file} ended with {done.returncode}; {ENDS[name]} was expected")
        newest = max((settings.state / "runs").glob("*/run.json"), key=lambda file: file.stat().st_mtime)
        source, target = Path(json.loads(newest.read_text())["adapter"]["path"]), settings.adapters / f"bench-{name}"
        target.mkdir(exist_ok=True)
        for part in ADAPTER_FILES:
            shutil.copyfile(source / part, target / part)
        found[name] = target.name
    vllm = addresses(settings).vllm
    for name in found.values():
        load_adapter(vllm, name)
    return Served(f"{vllm}/v1", found["good"], found["bad"])


def _plain(spec: Release, served: Served, base: Path, folder: Path) -> tuple[float, int]:
    """Seconds of lm-eval's own command on all items, start included, and their number."""
    suite, test = suite_of(spec), spec.dataset.test
    task = resolve_task(suite.task_yaml, test, suite.prompt)
    folder.mkdir()
    (folder / f"{task.name}.yaml").write_text(json.dumps(task.config))
    arguments = (
        f"model={served.good},base_url={served.base_url}/completions,tokenizer={base},num_concurrent={CONCURRENCY},"
        "tokenizer_backend=huggingface,max_length=1000000"
    )
    command = [sys.executable, "-m", "lm_eval", "run", "--model", "local-completions", "--model_args", arguments]
    command += ["--tasks", task.name, "--include_path", str(folder), "--apply_chat_template"]
    command += ["--system_instruction", suite.prompt.system] if suite.prompt.system else []
    began = time.monotonic()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"lm-eval ended with {done.returncode}: {done.stderr[-2000:]}")
    return time.monotonic() - began, len(load_items(test))


def _compare(asked: Asked, spec: Release, base_url: str, base: Path, folder: Path, plain: float) -> dict[str, Any]:
    suite, test, policy = replace(suite_of(spec), promptfoo_yaml=None), spec.dataset.test, asked.policy
    plan = plan_of_suite(load_items(test), resolve_task(suite.task_yaml, test, suite.prompt).slices, policy)
    began = time.monotonic()
    new, old = evaluate_in_blocks(
        Side(suite, asked.candidate, "candidate", base_url, base),
        Side(suite, asked.baseline, "baseline", base_url, base),
        test,
        Tools(promptfoo_of(get_settings()), folder),
        Setting(metric=spec.gate.metric, num_concurrent=CONCURRENCY),
        plan,
        policy,
        lambda tool, done, total: None,
    )
    seconds = time.monotonic() - began
    last = decide(new, old, policy, plan=plan)
    difference, ratio = last.rules[0].estimate, seconds / plain
    print(
        f"{asked.what:26} {last.verdict:13} {difference:+10.3f} {last.items_used:7} {seconds:8.1f} {ratio:6.2f}",
        flush=True,
    )
    return {
        "what": asked.what, "verdict": last.verdict, "right": last.verdict in asked.verdicts, "used": last.items_used,
        "seconds": seconds, "difference": difference, "ratio": ratio,
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
