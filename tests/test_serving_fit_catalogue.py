"""The GPU catalogue: complete, plausible against the cards' names, and clear about what it does not know."""

import pytest

from serving.fit import CatalogueInvalid, UnknownGpu, custom_gpu, find_gpu, load_gpus

GIB = 1024**3
BOX_GB = {
    "nvidia-l4": 24,
    "nvidia-tesla-t4": 16,
    "nvidia-a10g": 24,
    "nvidia-a100-40gb": 40,
    "nvidia-a100-80gb": 80,
    "nvidia-h100-80gb": 80,
    "nvidia-l40s": 48,
    "nvidia-a10": 24,
    "nvidia-h200": 141,
    "nvidia-b200": 192,
    "nvidia-l40": 48,
    "nvidia-a40": 48,
    "nvidia-v100-16gb": 16,
    "nvidia-v100-32gb": 32,
    "nvidia-geforce-rtx-2060-12gb": 12,
    "nvidia-geforce-rtx-3060": 12,
    "nvidia-geforce-rtx-3090": 24,
    "nvidia-geforce-rtx-4090": 24,
    "nvidia-geforce-rtx-5090": 32,
    "nvidia-rtx-pro-6000": 96,
    "nvidia-gh200-96gb": 96,
}


def test_every_card_is_there_with_less_memory_than_its_box_says() -> None:
    gpus = load_gpus()
    assert set(gpus) == set(BOX_GB)
    for name, gpu in gpus.items():
        assert gpu.name == name
        assert 0.9 * BOX_GB[name] < gpu.memory_bytes / GIB < BOX_GB[name]


def test_cards_before_ampere_lack_bfloat16() -> None:
    gpus = load_gpus()
    without = {"nvidia-tesla-t4", "nvidia-v100-16gb", "nvidia-v100-32gb", "nvidia-geforce-rtx-2060-12gb"}
    assert {name for name, gpu in gpus.items() if not gpu.bf16} == without
    assert gpus["nvidia-l4"].fp8 and not gpus["nvidia-a100-80gb"].fp8
    assert gpus["nvidia-a10g"].awq_marlin and not gpus["nvidia-tesla-t4"].awq_marlin


def gke_allocatable_gib(ram: float) -> float:
    """25 % of the first 4 GiB, 20 % of the next 4, 10 % of the next 8, 6 % of the next 112, 2 % above, and 0.1 GiB."""
    reserved, rest = 0.0, ram
    for size, share in ((4, 0.25), (4, 0.2), (8, 0.1), (112, 0.06), (float("inf"), 0.02)):
        reserved, rest = reserved + min(rest, size) * share, max(rest - size, 0)
    return ram - reserved - 0.1


def test_allocatable_memory_follows_the_kubelets_reservation_and_is_not_more() -> None:
    for gpu in load_gpus().values():
        for machine in gpu.machines:
            ram, allocatable = machine.ram_bytes / GIB, machine.allocatable_ram_bytes / GIB
            assert 0.95 * gke_allocatable_gib(ram) - 1 <= allocatable <= gke_allocatable_gib(ram)


def test_machines_for_more_cards() -> None:
    card = find_gpu("nvidia-l4")
    assert card.machine_for(2).name == "g2-standard-24" and card.machine_for(8).name == "g2-standard-24"
    assert find_gpu("nvidia-geforce-rtx-4090").machine is None


def test_cards_by_what_the_driver_reports() -> None:
    assert find_gpu("nvidia-l4", memory_gib=22.03).memory_bytes == int(22.03 * GIB)
    assert custom_gpu(11.5, (7, 5)).bf16 is False
    for impossible in (0.0, -1.0, float("nan"), float("inf"), 10_000.0):
        with pytest.raises(UnknownGpu, match="GPU memory is"):
            custom_gpu(impossible)


def test_l4_machine_and_the_disk_that_can_be_filled() -> None:
    machine = find_gpu("nvidia-l4").machine
    assert (machine.name, machine.vcpus, machine.disk_bytes) == ("g2-standard-4", 4, 90 * 10**9)


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UnknownGpu, match=r"nvidia-b900.*nvidia-a100-40gb, .*nvidia-tesla-t4"):
        find_gpu("nvidia-b900")


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
