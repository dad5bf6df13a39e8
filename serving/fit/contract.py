"""What the fit report promised against what the engine gave: predicted and actual, side by side. Pure.

The promise is the context length. Bytes that came out otherwise are shown and, outside the uncertainty band, named;
they break nothing as long as one sequence of the promised length is served.
"""

from dataclasses import dataclass

from serving.fit.catalogue import GIB
from serving.fit.engine_log import Actual, read_engine
from serving.fit.engines import version_number
from serving.fit.report import FitReport

TERMS = ("weights_bytes", "kv_cache_bytes", "activation_bytes", "cuda_graph_bytes", "non_torch_bytes")


class ContractUnread(Exception):
    """The log or the metrics do not say what the engine gave, so nothing is known about the promise."""


class ContractBroken(Exception):
    """The engine serves less context than the fit report promised, or did not start. `contract` has the numbers."""

    def __init__(self, message: str, contract: "Contract") -> None:
        super().__init__(message)
        self.contract = contract


@dataclass(frozen=True)
class Term:
    """One part of the memory, in bytes of one GPU."""

    name: str  # the FitReport's field
    predicted: int
    actual: int

    @property
    def residual(self) -> int:
        """Positive where the engine took, or left, more than predicted."""
        return self.actual - self.predicted


@dataclass(frozen=True)
class Contract:
    promised_max_model_len: int
    given_max_model_len: int  # tokens of one sequence that the engine serves; 0 when it did not start
    kept: bool
    engine_version: str | None
    device: str | None
    concurrency: float | None  # at the engine's own max_model_len
    terms: tuple[Term, ...]  # those that the engine reported; empty on another device than a GPU
    notes: tuple[str, ...]


def check_contract(report: FitReport, text: str) -> Contract:
    """`text`: vLLM's log from its start on, or its /metrics page. Raises ContractBroken, ContractUnread."""
    return hold(compare(report, read_engine(text)))


def hold(contract: Contract) -> Contract:
    """Raises ContractBroken."""
    if not contract.kept:
        raise ContractBroken(
            f"The engine serves {contract.given_max_model_len} tokens a sequence; the fit report promised "
            f"{contract.promised_max_model_len}. {' '.join(contract.notes)} Lower max_model_len, or give the engine "
            "what the report counted on.",
            contract,
        )
    return contract


def compare(report: FitReport, actual: Actual) -> Contract:
    """Raises ContractUnread."""
    given = _given(report.max_model_len, actual)
    notes = [f"The engine gave up: {actual.refusal[-300:]}"] if actual.refusal and not _started(actual) else []
    on_gpu = actual.device in (None, "GPU")
    terms = _terms(report, actual) if on_gpu else ()
    if not on_gpu:
        notes.append(f"The engine ran on {actual.device}; bytes were estimated for {report.gpu} and are not compared.")
    notes += [
        _surprise(term, report.uncertainty_bytes) for term in terms if abs(term.residual) > report.uncertainty_bytes
    ]
    if actual.engine_version and version_number(actual.engine_version) != version_number(report.engine_version):
        notes.append(f"The engine is vLLM {actual.engine_version}; the estimate is of {report.engine_version}.")
    return Contract(
        promised_max_model_len=report.max_model_len,
        given_max_model_len=given,
        kept=given >= report.max_model_len,
        engine_version=actual.engine_version,
        device=actual.device,
        concurrency=actual.concurrency,
        terms=terms,
        notes=tuple(notes),
    )


def _given(promised: int, actual: Actual) -> int:
    """The least of the engine's own length and what its cache holds; the concurrency counts before the tokens."""
    if actual.refusal and not _started(actual):
        return 0
    length = actual.max_model_len
    if not _started(actual) or (length is None and actual.kv_cache_tokens is None):
        raise ContractUnread(
            "The engine's log and metrics say neither its KV cache size nor its length; required: the lines from its "
            "start, or vllm:cache_config_info. Read the log from the first line on."
        )
    if length is None:  # a metrics page: the pool is the bound, and the length was given to the engine by us
        return min(promised, actual.kv_cache_tokens or 0)
    if actual.concurrency is not None:
        return length if actual.concurrency >= 1 else int(length * actual.concurrency)
    return length if actual.kv_cache_tokens is None else min(length, actual.kv_cache_tokens)


def _started(actual: Actual) -> bool:
    """The pool's size is logged after its check, so an engine that logs it has its memory."""
    return actual.kv_cache_tokens is not None or actual.concurrency is not None


def _terms(report: FitReport, actual: Actual) -> tuple[Term, ...]:
    """ "Model loading took" has the LoRA slots in it, so they are added to the weights predicted."""
    found = []
    for name in TERMS:
        value = getattr(actual, name)
        if value is not None:
            predicted = getattr(report, name) + (report.lora_bytes if name == "weights_bytes" else 0)
            found.append(Term(name, predicted, value))
    return tuple(found)


def _surprise(term: Term, uncertainty: int) -> str:
    return (
        f"{term.name.removesuffix('_bytes').replace('_', ' ')} came out {term.residual / GIB:+.2f} GiB from the "
        f"estimate, outside its band of {uncertainty / GIB:.2f} GiB."
    )
