"""The annotation that says: this pod's vLLM was checked with these very arguments. Pure.

Admission (deploy/policies/gpu-fit) compares it with the pod as text, because CEL can neither parse JSON nor hash. So the
text is one and only one: keys sorted, no spaces, arguments in full. The digests are for people and other programs.
It proves that the manifest was checked and has not changed since; it is not signed, so it proves nothing about who did.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence

from serving.fit.report import Verdict

ANNOTATION = "liftlock.dev/gpu-fit"
# Labels by which a pod chooses its card; what the pod selects by them is part of the stamp.
GPU_LABELS = (
    "cloud.google.com/gke-accelerator",
    "karpenter.k8s.aws/instance-gpu-name",
    "node.kubernetes.io/instance-type",
    "nvidia.com/gpu.product",
)


class NotStampable(Exception):
    """The arguments hold a character that the policies cannot compare."""


def stamp(
    args: Mapping[str, Sequence[str]],
    *,
    gpu: str,
    model: str,
    selector: Mapping[str, str],
    sources: Sequence[str],
    verdict: Verdict,
) -> str:
    """`args`: command and args of each GPU container by its name; `model`: ModelFiles.digest; `selector`: the pod's
    nodeSelector; `sources`: where the pod takes the model from (STORAGE_URI, image volumes). Raises NotStampable.
    """
    bound = {
        "args": {name: list(words) for name, words in args.items()},
        "gpu": gpu,
        "model": model,
        "selector": {label: selector[label] for label in GPU_LABELS if label in selector},
        "sources": sorted(set(sources)),
    }
    for text in (*(word for words in args.values() for word in words), *sources, *selector.values()):
        _check_text(text)
    digest = hashlib.sha256(_canonical(bound).encode()).hexdigest()
    return _canonical({**bound, "digest": f"sha256:{digest}", "verdict": verdict})


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _check_text(text: str) -> None:
    """JSON writes other control characters than these three as \\u00XX, which the policies do not undo."""
    odd = next((sign for sign in text if ord(sign) < 32 and sign not in "\n\r\t"), None)
    if odd is not None:
        raise NotStampable(f"The argument {text[:40]!r} holds {odd!r}; required: text. Write the argument without it.")
