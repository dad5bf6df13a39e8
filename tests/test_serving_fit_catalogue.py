"""The GPU catalogue: complete, plausible against the cards' names, and clear about what it does not know."""

import pytest

from serving.fit import CatalogueInvalid, UnknownGpu, find_gpu, load_gpus

GIB = 1024**3
BOX_GB = {
    "nvidia-l4": 24,
    "nvidia-tesla-t4": 16,
    "nvidia-a10g": 24,
    "nvidia-a100-40gb": 40,
    "nvidia-a100-80gb": 80,
    "nvidia-h100-80gb": 80,
    "nvidia-l40s": 48,
}


def test_every_card_is_there_with_less_memory_than_its_box_says() -> None:
    gpus = load_gpus()
    assert set(gpus) == set(BOX_GB)
    for name, gpu in gpus.items():
        assert gpu.name == name
        assert 0.9 * BOX_GB[name] < gpu.memory_bytes / GIB < BOX_GB[name]


def test_only_turing_lacks_bfloat16() -> None:
    assert [name for name, gpu in load_gpus().items() if not gpu.bf16] == ["nvidia-tesla-t4"]
    assert all(gpu.bf16 == (gpu.compute_capability >= (8, 0)) for gpu in load_gpus().values())


def gke_allocatable_gib(ram: float) -> float:
    """25 % of the first 4 GiB, 20 % of the next 4, 10 % of the next 8, 6 % of the next 112, 2 % above, and 0.1 GiB."""
    reserved, rest = 0.0, ram
    for size, share in ((4, 0.25), (4, 0.2), (8, 0.1), (112, 0.06), (float("inf"), 0.02)):
        reserved, rest = reserved + min(rest, size) * share, max(rest - size, 0)
    return ram - reserved - 0.1


def test_allocatable_memory_follows_the_kubelets_reservation_and_is_not_more() -> None:
    for gpu in load_gpus().values():
        ram, allocatable = gpu.machine.ram_bytes / GIB, gpu.machine.allocatable_ram_bytes / GIB
        assert 0.95 * gke_allocatable_gib(ram) - 1 <= allocatable <= gke_allocatable_gib(ram)


def test_l4_machine_and_the_disk_that_can_be_filled() -> None:
    machine = find_gpu("nvidia-l4").machine
    assert (machine.name, machine.vcpus, machine.disk_bytes) == ("g2-standard-4", 4, 90 * 10**9)


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UnknownGpu, match=r"nvidia-b200.*nvidia-a100-40gb, .*nvidia-tesla-t4"):
        find_gpu("nvidia-b200")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "gpus: {}",
        "gpus: [1]",
        "gpus: {x: {memory_mib: 1}}",
        "gpus: {a: 1, a: 2}",
        "{",
        "gpus: !!python/name:os.system",
    ],
)
def test_broken_catalogue(tmp_path, text) -> None:
    path = tmp_path / "gpus.yaml"
    path.write_text(text)
    with pytest.raises(CatalogueInvalid, match="not a GPU catalogue"):
        load_gpus(path)
    with pytest.raises(CatalogueInvalid):
        load_gpus(tmp_path / "absent.yaml")
