"""What vLLM says about its own memory, from its log or its /metrics page. Pure; no log is fetched here.

Lines of the V1 engine (0.11 to 0.32) and of the last V0 versions; both word the same facts differently. Of several
workers or engines the least cache and the most weights count, because the weakest decides what a request gets.
A log that was appended to over restarts is read from its last start.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from serving.fit.catalogue import GIB

NUMBER = r"(-?[0-9][0-9,]*(?:\.[0-9]+)?)"
START = "non-default args:"  # the API server's first line with content, once a start
VERSIONS = tuple(
    re.compile(before + r"([0-9]+\.[0-9]+[0-9A-Za-z.+]*)")
    for before in (r"LLM engine \(v", "API server version ", r"█ +version ")  # the surest first
)
DEVICE = re.compile(r"\b([A-Z]{3,4}) KV cache size:")
TOKENS = re.compile(rf"KV cache size: {NUMBER} tokens")
CONCURRENCY = re.compile(rf"Maximum concurrency for {NUMBER} tokens per request: {NUMBER}x")
LENGTH = re.compile(r"(?:Using max model len |\bmax_seq_len=)([0-9]+)")
WEIGHTS = re.compile(
    rf"(?:Model loading took|model weights take|weights memory:) ?{NUMBER} ?Gi?B|Actual usage is {NUMBER} GiB for weight,"
)
KV_CACHE = re.compile(rf"(?:Available KV cache memory:|reserved for KV Cache is) ?{NUMBER} ?GiB")
ACTIVATION = re.compile(
    rf"(?:torch peak memory increase:|PyTorch activation peak memory takes|for weight,) ?{NUMBER} ?GiB"
)
NON_TORCH = re.compile(
    rf"(?:non-torch forward increase memory:|non_torch_memory takes|for peak activation,) ?{NUMBER} ?GiB"
)
GRAPHS = re.compile(rf"Graph capturing finished in [0-9]+ secs, took {NUMBER} GiB")
TOTAL = re.compile(rf"(?:\({NUMBER} ?GiB\) x gpu_memory_utilization|on device \({NUMBER}/{NUMBER} GiB\))")
REFUSALS = (
    "No available memory for the cache blocks",
    "KV cache is needed, which is larger than the available KV cache memory",
    "is larger than the maximum number of tokens that can be stored in KV cache",
    "CUDA out of memory",
    "on startup is less than desired GPU memory utilization",
)
ESTIMATED = re.compile(r"estimated maximum model length is ([0-9]+)")
CACHE_INFO = re.compile(r"^vllm:cache_config_info\{(.*)\} 1(?:\.0)?$", re.MULTILINE)
LABEL = re.compile(r'([a-z_]+)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True)
class Actual:
    """None where the engine did not say."""

    engine_version: str | None = None
    device: str | None = None  # GPU, CPU, …, as the engine names it
    total_bytes: int | None = None
    max_model_len: int | None = None
    kv_cache_bytes: int | None = None
    kv_cache_tokens: int | None = None  # of the whole pool; no capacity for hybrid models before 0.20
    concurrency: float | None = None  # sequences of max_model_len tokens that the pool holds
    weights_bytes: int | None = None  # "Model loading took": with LoRA slots
    activation_bytes: int | None = None
    non_torch_bytes: int | None = None
    cuda_graph_bytes: int | None = None
    refusal: str | None = None  # the line with which the engine gave up
    estimated_max_model_len: int | None = None  # what the engine offered in its place
    asked: tuple[tuple[str, str], ...] = ()  # arguments that the log shows, as text


def read_engine(text: str) -> Actual:
    """A log or a metrics page, told apart by what is in it."""
    return read_metrics(text) if CACHE_INFO.search(text) else read_log(text)


def combined(log: str, metrics: str, *, max_model_len: int | None, engine_version: str | None) -> Actual:
    """Of a running engine: what its pages say now counts before its log, which alone has the bytes of the parts."""
    said, now = read_log(log), read_metrics(metrics)
    return replace(
        said,
        kv_cache_tokens=said.kv_cache_tokens if now.kv_cache_tokens is None else now.kv_cache_tokens,
        concurrency=said.concurrency if now.concurrency is None else now.concurrency,
        max_model_len=said.max_model_len if max_model_len is None else max_model_len,
        engine_version=engine_version or said.engine_version,
    )


def read_log(text: str) -> Actual:
    text = text[max(text.rfind("\n", 0, max(text.rfind(START), 0)), 0) :]
    concurrency = [(_number(length), _number(times)) for length, times in CONCURRENCY.findall(text)]
    lengths = [length for length, _ in concurrency] or [_number(found) for found in LENGTH.findall(text)]
    refusals = [line.strip() for line in text.splitlines() if any(words in line for words in REFUSALS)]
    return Actual(
        engine_version=next((found[-1] for each in VERSIONS if (found := each.findall(text))), None),
        device=_last(DEVICE.findall(text)),
        total_bytes=_gib(max, [first or last for first, _, last in TOTAL.findall(text)]),
        max_model_len=int(min(lengths)) if lengths else None,
        kv_cache_bytes=_gib(min, KV_CACHE.findall(text)),
        kv_cache_tokens=_least(TOKENS.findall(text)),
        concurrency=min((times for _, times in concurrency), default=None),
        weights_bytes=_gib(max, [first or second for first, second in WEIGHTS.findall(text)]),
        activation_bytes=_gib(max, ACTIVATION.findall(text)),
        non_torch_bytes=_gib(max, NON_TORCH.findall(text)),
        cuda_graph_bytes=_gib(max, GRAPHS.findall(text)),
        refusal=refusals[-1] if refusals else None,
        estimated_max_model_len=_least(ESTIMATED.findall(text)),
        asked=_arguments(text),
    )


def read_metrics(text: str) -> Actual:
    """vllm:cache_config_info has every field of vLLM's CacheConfig as a label; it names no max_model_len."""
    engines = [dict(LABEL.findall(labels)) for labels in CACHE_INFO.findall(text)]
    tokens = [found for found in map(_pool_tokens, engines) if found is not None]
    concurrency = [_float(labels.get("kv_cache_max_concurrency")) for labels in engines]
    known = [value for value in concurrency if value is not None]
    return Actual(
        kv_cache_tokens=min(tokens, default=None),
        concurrency=min(known, default=None),
        asked=tuple((name, engines[0][name]) for name in ("gpu_memory_utilization",) if name in engines[0]),
    )


def _pool_tokens(labels: Mapping[str, str]) -> int | None:
    """kv_cache_size_tokens since 0.20; before, blocks × block size (for hybrid models that is no capacity)."""
    said = _float(labels.get("kv_cache_size_tokens"))
    if said is not None:
        return int(said)
    blocks, size = _float(labels.get("num_gpu_blocks")), _float(labels.get("block_size"))
    return None if blocks is None or size is None else int(blocks * size)


def _arguments(text: str) -> tuple[tuple[str, str], ...]:
    """From the API server's line `non-default args: {'model': 'x', …}`: scalars only, the last of each name."""
    line = next((line for line in text.splitlines() if START in line), "")
    found = re.findall(r"'([a-z_]+)': ('(?:[^'\\]|\\.)*'|True|False|-?[0-9.]+)", line)
    return tuple({name: value.strip("'") for name, value in found}.items())


def _gib(choose: Callable[[list[float]], float], found: Iterable[str]) -> int | None:
    values = [_number(text) for text in found if text]
    return round(choose(values) * GIB) if values else None


def _least(found: Iterable[str]) -> int | None:
    return min((int(_number(text)) for text in found), default=None)


def _last(found: list[str]) -> str | None:
    return found[-1] if found else None


def _number(text: str) -> float:
    return float(text.replace(",", ""))


def _float(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:  # "None", where the engine has not set it
        return None
