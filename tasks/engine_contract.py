"""What the fit report promised, held against what the running engine says: its log, /metrics, /v1/models and /version.

Predicted and actual are kept in the state folder under the modelcar's digest, and in MLflow beside the version's other
evidence; a tag of the version names their sha256.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import mlflow
from pydantic import TypeAdapter

from serving.fit.contract import Contract, compare, hold
from serving.fit.engine_log import Actual, combined
from serving.fit.engines import version_number
from serving.fit.flags import FlagsRefused
from tasks.artifacts import FitReport, Modelcar, ModelVersion
from tasks.place import Place
from tasks.settings import Settings, get_settings
from tasks.spec import Release
from tasks.stack.addresses import addresses
from tasks.whole_file import write_whole

LOG_BYTES = 32 << 20
SECONDS = 10


class EngineMismatch(FlagsRefused):
    """The spec names another version of vLLM than the one that serves the release."""


def engine_version(spec: Release) -> str:
    """The version to estimate for: of the engine that serves. Raises EngineMismatch, httpx.HTTPError."""
    served = served_version(addresses(get_settings()).vllm)
    asked = spec.serving.engine_version
    if asked is not None and version_number(asked) != version_number(served):
        raise EngineMismatch(
            f"serving.engine_version is {asked} and the engine that serves this release is vLLM {served}; required: the same. "
            f"Leave it out, or say {served}"
        )
    return served


def served_version(vllm: str) -> str:
    """Such as 0.32.0; what follows a plus names a build."""
    return str(_json(f"{vllm}/version")["version"]).partition("+")[0]


def hold_to_contract(fit: FitReport, modelcar: Modelcar, version: ModelVersion, place: Place) -> Contract:
    """Of the engine at that place; kept before it is judged. Raises ContractBroken, ContractUnread, httpx.HTTPError, MlflowException."""
    settings = get_settings()
    contract = compare(fit, read_actual(place.url, log_of(settings, place.part)))
    text = json.dumps({"predicted": fit.document(), "contract": asdict(contract)}, indent=2) + "\n"
    write_whole(contract_file(settings, modelcar), text)
    client = mlflow.MlflowClient()
    tags = client.get_model_version(version.name, version.version).tags
    client.log_text(version.run_id, text, f"evidence/{tags['liftlock.evidence'][:12]}/contract.json")
    told = {"fit_contract_sha256": hashlib.sha256(text.encode()).hexdigest(), "fit_contract": summary(contract)}
    for name, value in told.items():
        client.set_model_version_tag(version.name, version.version, f"liftlock.{name}", value)
    return hold(contract)


def summary(contract: Contract) -> str:
    word = "kept" if contract.kept else "broken"
    return f"{word}: {contract.given_max_model_len} tokens given, {contract.promised_max_model_len} promised"


def read_actual(vllm: str, log: str) -> Actual:
    metrics = httpx.get(f"{vllm}/metrics", timeout=SECONDS).raise_for_status().text
    lengths = [entry["max_model_len"] for entry in _json(f"{vllm}/v1/models")["data"] if entry.get("max_model_len")]
    return combined(log, metrics, max_model_len=min(lengths, default=None), engine_version=served_version(vllm))


def log_of(settings: Settings, part: str) -> str:
    """The end of a local engine's log; empty for an engine elsewhere, which has only its pages."""
    file = settings.state / "logs" / f"{part}.log"
    if settings.vllm_url is not None or not file.is_file():
        return ""
    with file.open("rb") as stream:
        stream.seek(max(0, file.stat().st_size - LOG_BYTES))
        return stream.read().decode("utf-8", "replace")


def contract_file(settings: Settings, modelcar: Modelcar) -> Path:
    return settings.state / "contracts" / f"{modelcar.digest.removeprefix('sha256:')}.json"


def kept_contract(modelcar: Modelcar | None) -> Contract | None:
    """Of this modelcar's last rollout on this state folder."""
    if modelcar is None or not (file := contract_file(get_settings(), modelcar)).is_file():
        return None
    return TypeAdapter(Contract).validate_python(json.loads(file.read_text())["contract"])


def _json(url: str) -> Any:
    return httpx.get(url, timeout=SECONDS).raise_for_status().json()
