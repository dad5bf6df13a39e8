"""Modelcar: a base model and an adapter as an OCI image whose digest depends on their bytes alone.

image.py describes it, layout.py writes it to a folder, push.py sends it to a registry, place.py takes an adapter out of
it. Nothing here signs, and nothing here loads a model.
"""

from serving.modelcar.blobs import DigestMismatch
from serving.modelcar.image import Layer, ModelChanged, manifest, model_layers
from serving.modelcar.layout import LayoutInvalid, put_manifest, read_manifest, verify_layout, write_layout
from serving.modelcar.model import LayerRef, Modelcar, PushResult
from serving.modelcar.place import AdapterMissing, DestinationTaken, LayerRefused, place_adapter
from serving.modelcar.push import PushFailed, push
from serving.modelcar.source import ModelRefused

__all__ = [
    "AdapterMissing",
    "DestinationTaken",
    "DigestMismatch",
    "Layer",
    "LayerRef",
    "LayerRefused",
    "LayoutInvalid",
    "ModelChanged",
    "ModelRefused",
    "Modelcar",
    "PushFailed",
    "PushResult",
    "manifest",
    "model_layers",
    "place_adapter",
    "push",
    "put_manifest",
    "read_manifest",
    "verify_layout",
    "write_layout",
]
