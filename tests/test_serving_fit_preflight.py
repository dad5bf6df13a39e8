"""From folders to a report: real and tiny models, adapters, names of bases, and that no weight is read."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from serving.fit import (
    AdapterRefused,
    ConfigInvalid,
    EngineFlags,
    FitReport,
    HeaderInvalid,
    UnknownEngine,
    UnknownGpu,
    UnsupportedModel,
    preflight,
)
from tests.fix_fit import SMOLLM2, SMOLLM2_CONFIG, TINY, write_adapter, write_model

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(not SMOLLM2.is_dir(), reason="SmolLM2 is not set up")
def test_smollm2_with_an_adapter_fits_an_l4(tmp_path) -> None:
    adapter = write_adapter(tmp_path, SMOLLM2_CONFIG, r=16, base="HuggingFaceTB/SmolLM2-135M-Instruct")
    report = preflight(SMOLLM2, adapter, gpu="nvidia-l4", flags=EngineFlags(max_model_len=2048, max_loras=2))
    assert (report.verdict, report.max_model_len_fits) == ("fits", 8192)
    assert report.lora_bytes > 0
    assert "--max-loras=2" in report.flags and "--max-lora-rank=16" in report.flags
    assert report.weights_bytes / report.total_bytes < 0.02


def test_tiny_model(tmp_path) -> None:
    base, adapter = write_model(tmp_path / "base", shards=2), write_adapter(tmp_path / "adapter")
    plain, adapted = preflight(base, None, gpu="nvidia-tesla-t4"), preflight(base, adapter, gpu="nvidia-tesla-t4")
    assert isinstance(plain, FitReport) and plain.fits and adapted.fits
    assert adapted.headroom_bytes < plain.headroom_bytes
    assert adapted.disk_needed_bytes > plain.disk_needed_bytes


def test_names_of_the_base(tmp_path) -> None:
    base, adapter = write_model(tmp_path / "mnt"), write_adapter(tmp_path / "adapter")
    with pytest.raises(AdapterRefused, match="mnt"):
        preflight(base, adapter, gpu="nvidia-l4")
    assert preflight(base, adapter, gpu="nvidia-l4", base_model="org/base").fits
    with pytest.raises(AdapterRefused, match="other"):
        preflight(base, adapter, gpu="nvidia-l4", base_model="org/other")


def test_links_and_hub_cache_folders_name_the_base(tmp_path) -> None:
    adapter = write_adapter(tmp_path / "adapter")
    (tmp_path / "champion").symlink_to(write_model(tmp_path / "base"))
    cached = write_model(tmp_path / "models--org--base" / "snapshots" / "0a1b")
    for base in (tmp_path / "champion", cached):
        assert preflight(base, adapter, gpu="nvidia-l4").fits


def test_what_is_refused(tmp_path) -> None:
    base = write_model(tmp_path / "base")
    with pytest.raises(UnknownGpu):
        preflight(base, None, gpu="rtx")
    with pytest.raises(UnknownEngine):
        preflight(base, None, gpu="nvidia-l4", engine_version="latest")
    with pytest.raises(ConfigInvalid):
        preflight(tmp_path / "absent", None, gpu="nvidia-l4")
    (base / "config.json").write_text(json.dumps(TINY | {"quantization_config": {"quant_method": "exl2"}}))
    with pytest.raises(UnsupportedModel, match="quant_method"):
        preflight(base, None, gpu="nvidia-l4")


def test_a_config_without_weights_gets_no_verdict(tmp_path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(TINY))
    with pytest.raises(HeaderInvalid, match="No safetensors file"):
        preflight(tmp_path, None, gpu="nvidia-l4")


def test_only_the_header_is_read(tmp_path) -> None:
    """A file with a hole where its weights would be gives the same report: the weights are not looked at."""
    base = write_model(tmp_path / "base")
    whole = preflight(base, None, gpu="nvidia-l4")
    path = base / "model.safetensors"
    size, header = path.stat().st_size, int.from_bytes(path.read_bytes()[:8], "little")
    with path.open("r+b") as file:
        file.truncate(8 + header)
        file.truncate(size)
    assert preflight(base, None, gpu="nvidia-l4") == whole


def test_no_torch_and_no_framework_is_imported() -> None:
    code = "import sys, serving.fit; print({'torch', 'transformers', 'safetensors', 'prefect'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
