"""A FitReport as text for the terminal: one line a part, with a bar. Pure."""

from serving.fit.catalogue import GIB, MIB
from serving.fit.engines import find_engine
from serving.fit.report import FitReport

BAR_WIDTH = 30
EIGHTHS = " ▏▎▍▌▋▊▉"


def draw(report: FitReport) -> str:
    """Bars are shares of the GPU's total memory. Ends without a newline."""
    sequence = report.usable_bytes - report.headroom_bytes - _non_kv(report)
    rows = [
        ("weights", report.weights_bytes),
        ("LoRA slots", report.lora_bytes),
        ("activation", report.activation_bytes),
        ("CUDA graphs", report.cuda_graph_bytes),
        ("non-torch", report.non_torch_bytes),
        (f"KV, {report.max_model_len} tokens", sequence),
        ("headroom", report.headroom_bytes),
        ("not used", report.total_bytes - report.usable_bytes),
    ]
    return "\n".join([_title(report), *(_line(name, size, report.total_bytes) for name, size in rows), *report.reasons])


def _non_kv(report: FitReport) -> int:
    """What is taken off the usable memory; engines before 0.21 take their graphs outside of it."""
    graphs = report.cuda_graph_bytes if find_engine(report.engine_version).graphs_in_budget else 0
    return report.weights_bytes + report.lora_bytes + report.activation_bytes + graphs + report.non_torch_bytes


def _title(report: FitReport) -> str:
    verdict = report.verdict.replace("_", " ")
    return (
        f"{report.gpu}, vLLM {report.engine_version}: {verdict}, "
        f"headroom {report.headroom_bytes // MIB} MiB, uncertain by {report.uncertainty_bytes // MIB} MiB"
    )


def _line(name: str, size: int, total: int) -> str:
    return f"{name:<22} {bar(size, total)} {size / GIB:8.2f} GiB {100 * size / total:6.1f} %"


def bar(size: int, total: int) -> str:
    """BAR_WIDTH characters, filled to an eighth; empty for a negative size, full for one above the total."""
    eighths = max(0, min(size, total)) * BAR_WIDTH * 8 // total
    full, rest = divmod(eighths, 8)
    return ("█" * full + (EIGHTHS[rest] if rest else "")).ljust(BAR_WIDTH)
