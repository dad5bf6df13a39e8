"""The local engine: which number format a processor gets, its command, and when a release may have another engine."""

from dataclasses import replace

import pytest

from tasks.processor import cores
from tasks.stack.engine import Engine, EngineBusy, choose_engine, cpu_dtype, cpu_layout, vllm_arguments

CURRENT = Engine("/models/Base-1B", max_model_len=2048, max_lora_rank=8)
WIDER = replace(CURRENT, max_lora_rank=16)
OTHER = replace(CURRENT, model="/models/Other-2B")


@pytest.mark.parametrize(
    ("flags", "dtype"),
    [
        ("flags\t\t: fpu sse2 avx f16c avx2", "float32"),
        ("flags\t\t: fpu avx512f avx512vl avx512_vnni", "float32"),
        ("flags\t\t: fpu avx512f avx512_bf16", "auto"),
        ("flags\t\t: fpu avx512f amx_bf16 amx_tile", "auto"),
        ("Features\t: fp asimd asimddp", "float32"),
        ("Features\t: fp asimd sve svebf16 bf16", "auto"),
        ("", "float32"),
    ],
    ids=["avx2", "avx512", "avx512-bf16", "amx", "arm", "arm-bf16", "nothing-known"],
)
def test_float32_where_bfloat16_is_not_native(flags: str, dtype: str) -> None:
    assert cpu_dtype(f"processor\t: 0\nmodel name\t: any\n{flags}\n") == dtype


def test_the_dtype_reaches_the_engine() -> None:
    arguments = vllm_arguments(Engine("/models/Base-1B"), 8000, "float32")
    assert arguments[arguments.index("--dtype") + 1] == "float32"


@pytest.mark.parametrize(
    ("cpuinfo", "usable", "count"),
    [
        (
            "".join(f"processor\t: {n}\nphysical id\t: 0\nsiblings\t: 4\ncore id\t\t: {n // 2}\n\n" for n in range(4)),
            4,
            2,
        ),
        ("".join(f"processor\t: {n}\nphysical id\t: {n}\ncore id\t\t: 0\n\n" for n in range(2)), 2, 2),
        ("".join(f"processor\t: {n}\nphysical id\t: 0\ncore id\t\t: {n}\n\n" for n in range(8)), 3, 3),
        ("processor\t: 0\nFeatures\t: fp asimd\n\nprocessor\t: 1\nFeatures\t: fp asimd\n", 2, 2),
        ("", 4, 4),
    ],
    ids=["two-threads-a-core", "two-sockets", "confined", "arm", "nothing-known"],
)
def test_cores_are_physical_and_ours(cpuinfo: str, usable: int, count: int) -> None:
    assert cores(cpuinfo, usable) == count


def test_on_few_cores_the_engine_is_one_process_that_computes_on_all_of_them() -> None:
    two = cpu_layout(2)
    assert two.arguments == ("--distributed-executor-backend", "uni")
    assert (two.environment["OMP_NUM_THREADS"], two.environment["VLLM_ENABLE_V1_MULTIPROCESSING"]) == ("2", "0")
    many = cpu_layout(32)
    assert (many.arguments, dict(many.environment)) == ((), {})


def test_the_first_release_gets_the_engine_that_it_asks_for() -> None:
    asked = replace(CURRENT, max_model_len=512)
    assert choose_engine(None, asked, (), running=False) == asked


def test_an_engine_that_is_wide_enough_stays() -> None:
    assert choose_engine(WIDER, replace(CURRENT, max_model_len=512), ("router",), running=True) == WIDER


@pytest.mark.parametrize(("served", "running"), [((), True), ((), False), (("router",), False)])
def test_limits_grow_where_nobody_would_notice(served: tuple[str, ...], running: bool) -> None:
    assert choose_engine(replace(CURRENT, max_model_len=4096), WIDER, served, running) == replace(
        WIDER, max_model_len=4096
    )


def test_limits_do_not_grow_under_clients() -> None:
    with pytest.raises(EngineBusy) as refused:
        choose_engine(CURRENT, WIDER, ("router", "triage"), running=True)
    said = str(refused.value)
    for part in ("runs with max_lora_rank 8", "serves router, triage", "needs max_lora_rank 16", "liftlock down"):
        assert part in said
    assert "max_model_len" not in said  # the same in both


@pytest.mark.parametrize("running", [True, False])
def test_another_base_model_is_refused_while_models_are_released(running: bool) -> None:
    with pytest.raises(EngineBusy, match="LIFTLOCK_STATE"):
        choose_engine(CURRENT, OTHER, ("router",), running)
    assert choose_engine(CURRENT, OTHER, (), running) == OTHER
