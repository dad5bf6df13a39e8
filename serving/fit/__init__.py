"""GPU fit: does this adapter on this base model start on this GPU, and with which vLLM flags?

Read preflight.py first. Reading (preflight, weights, safetensors_header, adapter, catalogue) is apart from arithmetic
(config, flags, resolve, parts, host, changes, estimate). Nothing here imports torch, reads a weight, or touches a GPU.
"""

from serving.fit.adapter import AdapterRefused, AdapterShape, check_base, read_adapter
from serving.fit.catalogue import CatalogueInvalid, Gpu, UnknownGpu, find_gpu, load_gpus
from serving.fit.config import ConfigInvalid, ModelShape, UnsupportedModel
from serving.fit.engines import PINNED_ENGINE, UnknownEngine
from serving.fit.estimate import estimate
from serving.fit.flags import EngineFlags, FlagsRefused
from serving.fit.picture import draw
from serving.fit.preflight import preflight
from serving.fit.report import Change, FitReport
from serving.fit.safetensors_header import HeaderInvalid
from serving.fit.weights import Weights

__all__ = [
    "PINNED_ENGINE",
    "AdapterRefused",
    "AdapterShape",
    "CatalogueInvalid",
    "Change",
    "ConfigInvalid",
    "EngineFlags",
    "FitReport",
    "FlagsRefused",
    "Gpu",
    "HeaderInvalid",
    "ModelShape",
    "UnknownEngine",
    "UnknownGpu",
    "UnsupportedModel",
    "Weights",
    "check_base",
    "draw",
    "estimate",
    "find_gpu",
    "load_gpus",
    "preflight",
    "read_adapter",
]
