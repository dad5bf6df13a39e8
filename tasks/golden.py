"""The golden answers of a version among its evidence in MLflow: golden.json, and a tag that names its sha256."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict

import mlflow
from pydantic import TypeAdapter

from serving.rollout.golden import Golden
from tasks.artifacts import EvalPair
from tasks.promotion.evidence import EvidenceRefused, read_document

FILE, TAG = "golden.json", "liftlock.golden_sha256"


def golden_document(pair: EvalPair) -> dict[str, str]:
    """Nothing where no answers were kept."""
    return {FILE: json.dumps([asdict(one) for one in pair.golden])} if pair.golden else {}


def golden_tag(pair: EvalPair) -> dict[str, str]:
    text = golden_document(pair).get(FILE)
    return {TAG: hashlib.sha256(text.encode()).hexdigest()} if text else {}


def golden_of(client: mlflow.MlflowClient, name: str, version: str) -> tuple[Golden, ...]:
    """Empty for a version that was released before answers were kept. Raises EvidenceRefused, MlflowException."""
    found = client.get_model_version(name, version)
    tags: Mapping[str, str] = found.tags
    if TAG not in tags:
        return ()
    text = read_document(client, found, FILE)
    observed = hashlib.sha256(text.encode()).hexdigest()
    if observed != tags[TAG]:
        raise EvidenceRefused(
            f"{name} version {version}: {FILE} has sha256 {observed[:12]}, its tag names {tags[TAG][:12]}; release it again"
        )
    return TypeAdapter(tuple[Golden, ...]).validate_json(text)
