"""Programs of others read the image as it was meant: skopeo, oras, umoci with KServe's own commands, KServe's fetcher.

Each test is skipped where its program is not installed; `python -m tests.bench.oracles` installs those that Debian 12
has not.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from serving.modelcar import model_layers, open_store, parse_reference, push_image
from serving.modelcar.modelpack import modelpack
from serving.modelcar.push import put_document
from serving.modelcar.shell import ShellMissing, fetch_shell
from tests.fix_modelcar import make_adapter, make_base
from tests.fix_signing import need_peer

pytest_plugins = ("tests.fix_registry",)

ROOT = Path(__file__).parent.parent
PEERS = ROOT / ".toolchain" / "peers-modelcar" / "bin" / "python"
KSERVE_UID = 1010
# kserve, pkg/utils/storage.go: what the modelcar container and its init container are told to run.
LINK = "ln -sf /proc/$$/root/models /mnt/models && sleep 0"
PREFETCHED = '[ -d /models ] && [ "$(ls -A /models)" ] && echo "OK ... Prefetched and valid (/models exists)"'
FETCH = """
import os, sys
os.environ["KSERVE_OCI_INSECURE_REGISTRY"] = "true"
from kserve_storage import Storage
print(Storage._download_oci(sys.argv[1], sys.argv[2]))
"""
ORAS_PULL = """
import sys
from oras.client import OrasClient
client = OrasClient(hostname=sys.argv[1].split("/")[0], insecure=True)
client.pull(target=sys.argv[1], outdir=sys.argv[2], allowed_media_type=[])
"""


def need(program: str) -> str:
    if (found := shutil.which(program)) is None:
        pytest.skip(f"{program} is not on PATH: apt-get install {program}")
    return found


def peers() -> str:
    if not PEERS.exists():
        pytest.skip("oras-py and kserve-storage are not installed: python -m tests.bench.oracles")
    return str(PEERS)


@pytest.fixture(scope="module")
def busybox(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pinned one: of the toolchain, or fetched."""
    kept = ROOT / ".toolchain" / "busybox" / "busybox"
    if kept.is_file():
        return kept
    path = tmp_path_factory.mktemp("shell") / "busybox"
    try:
        fetch_shell(path)
    except ShellMissing as error:
        pytest.skip(str(error))
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A base without the hidden files that an image leaves out, so that trees can be compared whole."""
    base = make_base(tmp_path / "base")
    (base / ".gitattributes").unlink()
    shutil.rmtree(base / ".cache")
    return base


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def expected_tree(base: Path, adapter: Path) -> dict[str, bytes]:
    kept = ("adapter_config.json", "adapter_model.safetensors", "README.md")
    return tree(base) | {f"adapters/router/{name}": (adapter / name).read_bytes() for name in kept}


def push(model: Path, target: str, shell: Path | None = None) -> str:
    """Digest of the image of the base with an adapter `router`."""
    layers = model_layers(model, make_adapter(model.parent / "adapter"), "router", shell)
    reference = parse_reference(target)
    with open_store(reference) as store:
        return push_image(layers, {"a": "b"}, store, reference.tag).digest


def test_skopeo_reads_the_image(model: Path, registry: str, repository: str) -> None:
    skopeo = need("skopeo")
    digest = push(model, f"{registry}/{repository}:v1")
    address = f"docker://{registry.removeprefix('http://')}/{repository}:v1"
    done = subprocess.run([skopeo, "inspect", "--tls-verify=false", address], capture_output=True, check=True)
    seen = json.loads(done.stdout)
    assert (seen["Digest"], seen["Os"], seen["Architecture"], len(seen["Layers"])) == (digest, "linux", "amd64", 4)


def test_skopeo_copies_a_layout_and_keeps_the_digest(
    model: Path, tmp_path: Path, registry: str, repository: str
) -> None:
    skopeo = need("skopeo")
    digest = push(model, f"oci:{tmp_path / 'layout'}:v1")
    target = f"docker://{registry.removeprefix('http://')}/{repository}:v1"
    options = ["--insecure-policy", "copy", "--preserve-digests", "--dest-tls-verify=false"]
    subprocess.run([skopeo, *options, f"oci:{tmp_path / 'layout'}:v1", target], capture_output=True, check=True)
    with open_store(parse_reference(f"{registry}/{repository}")) as store:
        assert store.get_manifest("v1").digest == digest


def test_kserve_fetches_the_same_files(model: Path, tmp_path: Path, registry: str, repository: str) -> None:
    python = peers()
    digest = push(model, f"{registry}/{repository}:v1")
    (tmp_path / "out").mkdir()
    uri = f"oci://{registry.removeprefix('http://')}/{repository}@{digest}"
    done = subprocess.run(
        [python, "-c", FETCH, uri, str(tmp_path / "out")], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert tree(tmp_path / "out") == expected_tree(model, tmp_path / "adapter")


def test_oras_pulls_the_modelpack_artifact(model: Path, tmp_path: Path, registry: str, repository: str) -> None:
    python = peers()
    layers = model_layers(model, None, None)
    with open_store(parse_reference(f"{registry}/{repository}")) as store:
        push_image(layers, {}, store, "v1")
        put_document(store, *modelpack(layers, "base", {}), "v1-modelpack")
    address = f"{registry.removeprefix('http://')}/{repository}:v1-modelpack"
    subprocess.run([python, "-c", ORAS_PULL, address, str(tmp_path / "out")], capture_output=True, check=True)
    assert tree(tmp_path / "out") == {layer.title: b"".join(layer.stream()) for layer in layers}


def test_the_oras_program_pulls_it_too(model: Path, tmp_path: Path, registry: str, repository: str) -> None:
    oras = need_peer("oras")
    push(model, f"{registry}/{repository}:v1")
    address = f"{registry.removeprefix('http://')}/{repository}:v1"
    subprocess.run(
        [oras, "pull", "--plain-http", "-o", str(tmp_path / "out"), address], capture_output=True, check=True
    )
    assert len(tree(tmp_path / "out")) == 4


def test_kserve_runs_its_commands_in_the_image(model: Path, tmp_path: Path, busybox: Path) -> None:
    umoci = need("umoci")
    if os.geteuid() != 0:
        pytest.skip("chroot needs root")
    push(model, f"oci:{tmp_path / 'layout'}:v1", busybox)
    bundle = tmp_path / "bundle"
    subprocess.run(
        [umoci, "unpack", "--image", f"{tmp_path / 'layout'}:v1", str(bundle)], capture_output=True, check=True
    )
    root = bundle / "rootfs"
    run = json.loads((bundle / "config.json").read_text())["process"]
    assert (
        run["args"] in (None, [], ["sh"], ["/bin/sh"]) or "args" not in run
    )  # no entry point: KServe's arguments are run
    assert any(value.startswith("PATH=") and "/bin" in value for value in run["env"])
    (root / "mnt").chmod(0o777)  # KServe mounts an emptyDir there

    def inside(script: str) -> str:
        path = next(value for value in run["env"] if value.startswith("PATH=")).removeprefix("PATH=")
        done = subprocess.run(
            ["chroot", f"--userspec={KSERVE_UID}:0", str(root), "sh", "-c", script],
            env={"PATH": f"{path}"}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "Prefetched and valid" in inside(PREFETCHED)
    inside(LINK)
    assert (root / "mnt" / "models").is_symlink()
    assert "config.json" in inside("ls /models && sleep 0 && cat /models/config.json")
    assert tree(root / "models") == expected_tree(model, tmp_path / "adapter")
