"""Modelcar: a base model and an adapter as an OCI image whose digest depends on their bytes alone.

image.py describes it; push.py brings it to a registry (registry.py) or a layout folder (layout.py); pull.py brings it
back, verified by digest; place.py takes an adapter out of a layout for an engine. Nothing here loads a model.
"""

from serving.modelcar.blobs import DigestMismatch
from serving.modelcar.digests import DigestCache
from serving.modelcar.document import Access, ImageMissing, RegistryFailed
from serving.modelcar.image import manifest, model_layers
from serving.modelcar.layer import Layer, ModelChanged
from serving.modelcar.layout import LayoutInvalid, put_manifest, read_manifest, verify_layout, write_layout
from serving.modelcar.model import LayerRef, Modelcar, PushResult
from serving.modelcar.place import AdapterMissing, DestinationTaken, place_adapter
from serving.modelcar.push import copy_image, push_image
from serving.modelcar.reference import Reference, ReferenceInvalid, parse_reference
from serving.modelcar.source import ModelRefused
from serving.modelcar.store import ImageStore, open_store
from serving.modelcar.unpack import LayerRefused

__all__ = [
    "Access",
    "AdapterMissing",
    "DestinationTaken",
    "DigestCache",
    "DigestMismatch",
    "ImageMissing",
    "ImageStore",
    "Layer",
    "LayerRef",
    "LayerRefused",
    "LayoutInvalid",
    "ModelChanged",
    "ModelRefused",
    "Modelcar",
    "PushResult",
    "Reference",
    "ReferenceInvalid",
    "RegistryFailed",
    "copy_image",
    "manifest",
    "model_layers",
    "open_store",
    "parse_reference",
    "place_adapter",
    "push_image",
    "put_manifest",
    "read_manifest",
    "verify_layout",
    "write_layout",
]
