"""make bench-adapters: 64 adapters on one engine against one adapter, and what happens past the slots. Real vLLM and Envoy.

Adapters of rank 8 with random weights, asked in turn through the gateway by 16 clients, each answer 8 tokens. Once with as many slots as
adapters, and once with 8 slots and room for 32 adapters in the host's memory. The plot goes to docs/images/adapters.png with ARGS=--plot.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
import numpy as np
from safetensors.numpy import save_file

from serving.engine import load_adapter
from serving.gateway.envoy import Split
from serving.gateway.state import Gateway
from serving.gateway.trace import trace
from tasks.stack.engine import Engine
from tests.bench.figures import Figure, end, flags
from tests.bench.real_vllm import running_vllm
from tests.fix_envoy import Envoy, free_ports

ROOT = Path(__file__).resolve().parents[2]
BASE = "SmolLM2-135M-Instruct"
ADAPTERS, RANK, CLIENTS, TOKENS = 64, 8, 16, 8
COUNTS = {64: (1, 64), 8: (1, 8, 16, 32, 64)}  # by slots: how many adapters are asked
SECONDS = 12.0
LIMIT_SHARE = (
    0.5  # of one adapter's throughput with all 64 in slots; not asked for by anybody: below it the slots do not help
)
PROMPT = "A customer writes that the parcel has not arrived and asks where it is. Which team answers? " * 2


@dataclass(frozen=True)
class Row:
    """First-token times in milliseconds, answers with eight tokens each."""

    slots: int
    adapters: int
    tokens_per_second: float
    first_p50: float
    first_p95: float
    failures: int


def write_adapters(folder: Path, model: Path) -> list[str]:
    """Random, but small, so that answers stay those of a language model."""
    config = json.loads((model / "config.json").read_text())
    hidden, layers = config["hidden_size"], config["num_hidden_layers"]
    wide = {"q_proj": hidden, "v_proj": config["num_key_value_heads"] * config["head_dim"]}
    names = [f"adapter-{number:02}" for number in range(ADAPTERS)]
    for seed, name in enumerate(names):
        random = np.random.default_rng(seed)
        tensors = {}
        for layer, (part, out) in itertools.product(range(layers), wide.items()):
            key = f"base_model.model.model.layers.{layer}.self_attn.{part}"
            tensors[f"{key}.lora_A.weight"] = random.normal(0, 0.02, (RANK, hidden)).astype(np.float32)
            tensors[f"{key}.lora_B.weight"] = random.normal(0, 0.02, (out, RANK)).astype(np.float32)
        (folder / name).mkdir(parents=True)
        save_file(tensors, folder / name / "adapter_model.safetensors")
        said = {
            "peft_type": "LORA",
            "base_model_name_or_path": BASE,
            "r": RANK,
            "lora_alpha": RANK,
            "target_modules": list(wide),
        }
        (folder / name / "adapter_config.json").write_text(json.dumps(said))
    return names


def engine_with(models: Path, slots: int) -> Engine:
    """With four times as many places in the host's memory."""
    return Engine(str(models / BASE), max_num_seqs=CLIENTS, max_loras=slots, max_lora_rank=RANK)


@contextmanager
def gateway(folder: Path, engine_url: str, names: list[str]) -> Iterator[str]:
    folder.mkdir()
    (folder / "splits.json").write_text(json.dumps([asdict(Split(f"public-{name}", name)) for name in names]))
    port, admin = free_ports(2)
    state = Gateway(folder, f"http://127.0.0.1:{admin}", engine_url, BASE.lower())
    state.install(port, admin)
    envoy = Envoy(state, f"http://127.0.0.1:{port}")
    try:
        envoy.start()
        for path in ("/v1/load_lora_adapter", "/v1/unload_lora_adapter"):
            assert httpx.post(f"{envoy.url}{path}", json={"lora_name": names[0], "lora_path": "/"}).status_code == 404
        yield envoy.url
    finally:
        envoy.kill()


def ask(client: httpx.Client, url: str, model: str) -> float | None:
    """Milliseconds to the first token of a whole answer; None: it failed."""
    body = {
        "model": model,
        "prompt": PROMPT,
        "max_tokens": TOKENS,
        "ignore_eos": True,
        "stream": True,
        "temperature": 0,
    }
    began, first, ended = time.perf_counter(), None, False
    with client.stream("POST", f"{url}/v1/completions", json=body) as answer:
        for line in answer.iter_lines():
            if first is None and '"text"' in line:
                first = (time.perf_counter() - began) * 1000
            ended = ended or line == "data: [DONE]"
    return first if ended and answer.status_code == 200 else None


def measure(url: str, names: list[str], slots: int, seconds: float) -> Row:
    """All clients ask for the names in turn."""
    turn, lock, found = itertools.cycle(names), threading.Lock(), list[float | None]()
    until = time.monotonic() + seconds

    def run() -> None:
        with httpx.Client(timeout=120) as client:
            while time.monotonic() < until:
                with lock:
                    model = next(turn)
                found.append(ask(client, url, model))

    threads = [threading.Thread(target=run) for _ in range(CLIENTS)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.monotonic() - began
    good = [one for one in found if one is not None]
    p50, p95 = np.percentile(good, [50, 95]) if good else (float("nan"), float("nan"))
    return Row(slots, len(names), len(good) * TOKENS / took, float(p50), float(p95), len(found) - len(good))


def measure_all(seconds: float) -> list[Row]:
    toolchain = Path(os.environ.get("LIFTLOCK_TOOLCHAIN", ROOT / ".toolchain"))
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        names = write_adapters(folder / "adapters", toolchain / "models" / BASE)
        for slots, counts in COUNTS.items():
            with running_vllm(folder / "adapters", engine_with(toolchain / "models", slots), toolchain) as direct:
                for adapter in names[: min(slots, 4)]:
                    load_adapter(direct, adapter)  # what the first adapter pays once is not counted
                with gateway(folder / f"gateway-{slots}", direct, names) as url:
                    if not rows:
                        traced = one_id_at_every_hop(url, folder / f"gateway-{slots}", folder / "vllm.log")
                        direct_row = measure(direct, names[:1], slots, seconds)
                    for count in counts:
                        rows.append(measure(url, [f"public-{name}" for name in names[:count]], slots, seconds))
                        print(_line(rows[-1], rows[0]), flush=True)
    print(f"one adapter without the gateway: {_line(direct_row, rows[0])}")
    print(f"hops that know one request's id: {', '.join(traced)}")
    return rows


def one_id_at_every_hop(url: str, folder: Path, log: Path) -> list[str]:
    """The places that `liftlock trace` finds; the prompt is in none of their logs."""
    asked = "bench-adapters-1"
    body = {"model": "public-adapter-00", "prompt": PROMPT, "max_tokens": 1}
    httpx.post(f"{url}/v1/completions", json=body, headers={"x-request-id": asked}, timeout=60).raise_for_status()
    time.sleep(1)
    places = [hop.place for hop in trace(asked, [folder / "access.log"], [log])]
    assert set(places) == {"gateway", "engine"}, places
    assert not [file for file in (folder / "access.log", log) if PROMPT[:40] in file.read_text(errors="replace")]
    return places


def _line(row: Row, one: Row) -> str:
    share = row.tokens_per_second / one.tokens_per_second
    return (
        f"{row.slots:>5} slots {row.adapters:>4} adapters {row.tokens_per_second:>8.1f} tokens/s {share:>6.2f} of one adapter  "
        f"first token p50 {row.first_p50:>7.0f} ms  p95 {row.first_p95:>7.0f} ms  failed {row.failures}"
    )


def plot(rows: list[Row], target: Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for slots, colour in zip(COUNTS, ("tab:blue", "tab:red"), strict=True):
        mine = [row for row in rows if row.slots == slots]
        counts = [row.adapters for row in mine]
        left.plot(counts, [row.tokens_per_second for row in mine], "o-", color=colour, label=f"{slots} slots")
        right.plot(counts, [row.first_p50 for row in mine], "o-", color=colour, label=f"{slots} slots, p50")
        right.plot(counts, [row.first_p95 for row in mine], "o--", color=colour, label=f"{slots} slots, p95")
    for axis, said in ((left, "tokens a second"), (right, "first token, ms")):
        axis.set(xlabel="adapters asked in turn", ylabel=said, ylim=(0, None), xscale="log", xticks=[1, 8, 16, 32, 64])
        axis.set_xticklabels(["1", "8", "16", "32", "64"])
        axis.axvline(8, color="grey", lw=0.6)
        axis.axvline(32, color="grey", lw=0.6, ls=":")
        axis.legend(fontsize=8)
    figure.savefig(target, dpi=110, metadata={"Software": None})


def main() -> int:
    asked = flags(__doc__, "--short", "--plot")
    rows = measure_all(4.0 if asked.short else SECONDS)
    if asked.plot:
        plot(rows, ROOT / "docs" / "images" / "adapters.png")
    share = rows[1].tokens_per_second / rows[0].tokens_per_second
    failures = sum(row.failures for row in rows)
    figures = [
        Figure(f"tokens a second of one adapter's, {rows[1].adapters} adapters", share, "", "higher", LIMIT_SHARE),
        Figure("failed requests", failures, "", "lower", 0),
    ]
    return end("adapters", figures, short=asked.short, details=[asdict(row) for row in rows])


if __name__ == "__main__":
    sys.exit(main())
