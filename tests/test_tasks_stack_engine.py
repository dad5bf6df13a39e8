"""The local engine's command: which number format a processor gets, and that it reaches vLLM."""

import pytest

from tasks.stack.engine import Engine, cpu_dtype, vllm_arguments


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
