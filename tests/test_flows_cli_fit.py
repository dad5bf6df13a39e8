"""`liftlock fit` as a person meets it: a process, its two streams and its exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.cli import main
from serving.fit.stamp import ANNOTATION
from tests.fix_fit import LLAMA_8B, SMOLLM2_CONFIG, TINY, write_adapter, write_model
from tests.fix_hub import running_hub
from tests.fix_manifests import container, deployment, pod_spec, write

ROOT = Path(__file__).parent.parent
LOGS = ROOT / "tests" / "data" / "vllm_logs"
Run = Callable[..., subprocess.CompletedProcess[str]]
VERDICT_FIELDS = {
    "verdict", "exit_code", "gpu", "engine_version", "total_bytes", "usable_bytes", "weights_bytes", "kv_cache_bytes",
    "kv_cache_tokens", "activation_bytes", "cuda_graph_bytes", "non_torch_bytes", "lora_bytes", "headroom_bytes",
    "uncertainty_bytes", "max_model_len", "max_model_len_fits", "max_num_seqs_fits", "concurrency_at_max_model_len",
    "flags", "changes", "reasons",
}  # fmt: skip


@pytest.fixture
def fit(tmp_path: Path) -> Run:
    """Runs `liftlock fit` in tmp_path, with its state there too."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("LIFTLOCK_", "HF_", "REGISTRY_"))}
    env = {**kept, "PYTHONPATH": str(ROOT), "LIFTLOCK_STATE": str(tmp_path / "state"), "COLUMNS": "100"}

    def run(*arguments: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-P", "-m", "flows.cli", "fit", *map(str, arguments)],
            cwd=tmp_path, env=env | more, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    return run


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The one message of a run that ended with exit code 2."""
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("liftlock: ")
    assert "Traceback" not in done.stderr
    return done.stderr.removeprefix("liftlock: ").rstrip("\n")


def config_only(path: Path, config: dict[str, object]) -> Path:
    path.write_text(json.dumps(config))
    return path


def test_a_folder_that_fits(fit: Run, tmp_path: Path) -> None:
    write_model(tmp_path / "tiny")
    done = fit("tiny", "--gpu", "nvidia-l4", "--max-model-len", "128")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("nvidia-l4, vLLM 0.23.0: fits, headroom ")
    assert all(part in done.stdout for part in ("weights", "activation", "CUDA graphs", "non-torch", "KV, 128 tokens"))
    assert "vllm serve tiny --dtype=bfloat16 --max-model-len=128 " in done.stdout


def test_the_json_document(fit: Run, tmp_path: Path) -> None:
    write_model(tmp_path / "tiny")
    document = json.loads(fit("tiny", "--gpu", "nvidia-l4", "--json").stdout)
    assert set(document) >= VERDICT_FIELDS
    assert (document["verdict"], document["exit_code"], document["gpu"]) == ("fits", 0, "nvidia-l4")
    assert document["model_digest"].startswith("sha256:")


def test_a_model_that_does_not_fit(fit: Run, tmp_path: Path) -> None:
    """8 billion parameters of 2 bytes are 15 GiB; a T4 has 14.6."""
    config_only(tmp_path / "config.json", LLAMA_8B)
    done = fit("config.json", "--gpu", "nvidia-tesla-t4", "--max-model-len", "4096")
    assert (done.returncode, done.stderr) == (3, "")
    assert "does not fit" in done.stdout.splitlines()[0]
    assert "\n  --" in done.stdout
    document = json.loads(fit("config.json", "--gpu", "nvidia-tesla-t4", "--json").stdout)
    assert (document["verdict"], document["exit_code"]) == ("does_not_fit", 3)
    assert document["changes"]
    assert all(change["flag"] and change["effect_bytes"] for change in document["changes"])


def test_flags_reach_the_estimate(fit: Run, tmp_path: Path) -> None:
    config_only(tmp_path / "config.json", LLAMA_8B)
    done = fit(
        "config.json", "--gpu-memory", "80", "--gpu-memory-utilization", "0.8", "--max-num-seqs", "32",
        "--max-num-batched-tokens", "4096", "--kv-cache-dtype", "fp8", "--enforce-eager", "--max-loras", "2",
        "--max-lora-rank", "32", "--tensor-parallel-size", "2", "--engine-version", "0.19.0", "--json",
    )  # fmt: skip
    document = json.loads(done.stdout)
    assert document["engine_version"] == "0.19.0"
    assert document["total_bytes"] == 80 * 2**30
    assert set(document["flags"]) >= {
        "--gpu-memory-utilization=0.8", "--max-num-seqs=32", "--max-num-batched-tokens=4096", "--kv-cache-dtype=fp8",
        "--enforce-eager", "--max-loras=2", "--max-lora-rank=32", "--tensor-parallel-size=2",
    }  # fmt: skip


def test_adapters_and_their_refusal(fit: Run, tmp_path: Path) -> None:
    write_model(tmp_path / "tiny")
    write_adapter(tmp_path / "mine", base="org/tiny")
    write_adapter(tmp_path / "foreign", base="org/other")
    done = fit("tiny", "--gpu", "nvidia-l4", "--adapter", "mine", "--json")
    assert json.loads(done.stdout)["lora_bytes"] > 0
    assert "org/other" in refused(fit("tiny", "--gpu", "nvidia-l4", "--adapter", "mine", "--adapter", "foreign"))


def test_a_model_of_the_hub(fit: Run, tmp_path: Path) -> None:
    with running_hub() as hub:
        hub.models["org/tiny"] = write_model(tmp_path / "elsewhere")
        done = fit("org/tiny@v1", "--gpu", "nvidia-l4", "--json", HF_ENDPOINT=hub.endpoint)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["model"] == "org/tiny"
        assert "404" in refused(fit("org/none", "--gpu", "nvidia-l4", "--hub-endpoint", hub.endpoint))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "no MODEL"),
        (["tiny"], "no GPU; use --gpu with one of"),
        (["tiny", "--gpu", "nvidia-x1"], "No GPU 'nvidia-x1'"),
        (["tiny", "--gpu-memory", "-3"], "GPU memory is -3"),
        (["tiny", "--gpu", "nvidia-l4", "--max-model-len", "0"], "max_model_len"),
        (["tiny", "--gpu", "nvidia-l4", "--max-model-len", "x"], "max-model-len"),
        (["tiny", "--gpu", "nvidia-l4", "--kv-cache-dtype", "int3"], "kv_cache_dtype"),
        (["tiny", "--gpu", "nvidia-l4", "--engine-version", "new"], "'new' is no vLLM version"),
        (["tiny", "--gpu", "nvidia-l4", "--write"], "go with --manifests"),
        (["tiny", "--manifests", "m"], "leave out MODEL"),
        (["--manifests", "m", "--max-model-len", "8"], "read from the manifests"),
        (["--manifests", "nowhere"], "is no folder"),
        (["--manifests", ".", "--stamp", "a", "--write"], "use one of them"),
        (["empty", "--gpu", "nvidia-l4"], "has no config.json"),
        (["no such thing", "--gpu", "nvidia-l4"], "is no folder that exists"),
        (["calibrate"], "LOGFILE"),
        (["calibrate", "nothing.log"], "cannot be read"),
        (["calibrate", "empty.log"], "does not name the model"),
        (["tiny", "--unknown"], "--unknown"),
    ],
)
def test_wrong_usage(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    words: str,
) -> None:
    """In this process, for speed; the tests around it start the command."""
    write_model(tmp_path / "tiny")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.log").write_text("")
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["liftlock", "fit", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    out, err = capsys.readouterr()
    assert (ended.value.code, out) == (2, "")
    assert err.startswith("liftlock: ")
    assert words in err
    assert sorted(tmp_path.rglob("*")) == before


def test_pickles_and_own_code_are_refused(fit: Run, tmp_path: Path) -> None:
    write_model(tmp_path / "pickled")
    (tmp_path / "pickled" / "model.safetensors").rename(tmp_path / "pickled" / "pytorch_model.bin")
    assert "pickled weights (pytorch_model.bin)" in refused(fit("pickled", "--gpu", "nvidia-l4"))
    write_model(tmp_path / "code", TINY | {"auto_map": {"AutoModelForCausalLM": "modeling.Mine"}})
    assert "auto_map" in refused(fit("code", "--gpu", "nvidia-l4"))


def test_help_has_an_example_and_imports_nothing_heavy(fit: Run) -> None:
    done = fit("--help")
    assert done.returncode == 0
    assert "Usage: liftlock fit" in done.stdout
    assert "Example: liftlock fit" in done.stdout
    assert "Example: liftlock fit calibrate" in fit("calibrate", "--help").stdout
    code = "import sys, flows.cli; print([m for m in ('torch', 'serving', 'httpx', 'pydantic') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


def test_a_verdict_imports_no_torch(tmp_path: Path) -> None:
    model = write_model(tmp_path / "tiny")
    code = (
        "import sys, contextlib, flows.cli\n"
        f"sys.argv = ['liftlock', 'fit', {str(model)!r}, '--gpu', 'nvidia-l4', '--json']\n"
        "with contextlib.suppress(SystemExit): flows.cli.main()\n"
        "print('torch' in sys.modules, 'prefect' in sys.modules, 'transformers' in sys.modules, file=sys.stderr)\n"
    )
    env = os.environ | {"LIFTLOCK_STATE": str(tmp_path / "state")}
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    assert (json.loads(found.stdout)["verdict"], found.stderr) == ("fits", "False False False\n")


def test_calibrate_learns_and_fit_shows_it(fit: Run, tmp_path: Path) -> None:
    config_only(tmp_path / "config.json", LLAMA_8B)
    arguments = (LOGS / "gpu-0.15.log", "--gpu", "nvidia-a100-40gb", "--model", "config.json")
    done = fit("calibrate", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("vLLM 0.15 on nvidia-a100-40gb, actual minus estimate in MiB\n")
    rows = json.loads(fit("calibrate", *arguments, "--json").stdout)
    assert {(row["part"], row["starts"]) for row in rows} == {
        ("weights_bytes", 1), ("kv_cache_bytes", 1), ("cuda_graph_bytes", 1),
    }  # fmt: skip
    kv = next(row for row in rows if row["part"] == "kv_cache_bytes")
    served = ("--gpu", "nvidia-a100-40gb", "--engine-version", "0.15.1", "--max-model-len", "131072", "--json")
    shown = json.loads(fit("config.json", *served).stdout)
    assert kv["median_bytes"] == round(19.28 * 2**30) - shown["kv_cache_bytes"]
    assert shown["calibration"].startswith("1 start of vLLM 0.15 on nvidia-a100-40gb left ")
    assert shown["calibration"] in fit("config.json", *served[:-1]).stdout
    assert json.loads(fit("config.json", "--gpu", "nvidia-l4", "--json").stdout)["calibration"] is None


def test_a_log_without_a_gpu_teaches_nothing(fit: Run, tmp_path: Path) -> None:
    write_model(tmp_path / "SmolLM2-135M-Instruct", TINY)
    log = LOGS / "cpu-0.32.log"
    told = refused(fit("calibrate", log, "--gpu", "nvidia-l4", "--model", "SmolLM2-135M-Instruct"))
    assert "ran on CPU" in told


def test_manifests_are_checked_and_stamped(fit: Run, tmp_path: Path) -> None:
    model = tmp_path / "models" / "org" / "small"
    model.mkdir(parents=True)
    config_only(model / "config.json", SMOLLM2_CONFIG)
    write(tmp_path / "m", deployment(pod_spec()))
    done = fit("--manifests", "m", "--model-root", "models", "--write")
    assert (done.returncode, done.stderr) == (0, "")
    assert "all.yaml: Deployment raw-vllm, container vllm: fits" in done.stdout
    assert "1 checked, 0 with findings" in done.stdout
    assert ANNOTATION in (tmp_path / "m" / "all.yaml").read_text()
    write(tmp_path / "bad", deployment(pod_spec(container(memory="20Gi"))))
    done = fit("--manifests", "bad", "--model-root", "models", "--stamp", "out", "--json")
    assert done.returncode == 3
    document = json.loads(done.stdout)
    assert document["exit_code"] == 3
    assert len(document["containers"][0]["findings"]) == 1
    assert document["containers"][0]["report"]["verdict"] == "fits"
    assert ANNOTATION not in (tmp_path / "out" / "all.yaml").read_text()
