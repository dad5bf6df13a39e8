"""GPU fit: does this adapter on this base model start on this GPU, and with which vLLM flags?

Read preflight.py first. Reading (preflight, files, safetensors_header, adapter, catalogue) is apart from arithmetic
(config, layers, matrices, weights, kv, activation, parts, band, estimate). Nothing here imports torch, reads a weight, or
touches a GPU.
"""

from serving.fit.adapter import AdapterRefused, AdapterShape, check_base, read_adapter
from serving.fit.catalogue import CatalogueInvalid, Gpu, UnknownGpu, custom_gpu, find_gpu, load_gpus
from serving.fit.config import parse_config
from serving.fit.engines import PINNED_ENGINE, UnknownEngine
from serving.fit.estimate import estimate
from serving.fit.fields import ConfigInvalid, UnsupportedModel
from serving.fit.flags import EngineFlags, FlagsRefused
from serving.fit.picture import draw
from serving.fit.preflight import preflight
from serving.fit.report import Change, FitReport
from serving.fit.safetensors_header import HeaderInvalid
from serving.fit.shapes import ModelShape
from serving.fit.weights import Weights, weights_from_config, weights_from_headers

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
    "custom_gpu",
    "draw",
    "estimate",
    "find_gpu",
    "load_gpus",
    "parse_config",
    "preflight",
    "read_adapter",
    "weights_from_config",
    "weights_from_headers",
]
