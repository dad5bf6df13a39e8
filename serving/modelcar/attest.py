"""What Liftlock says about an image besides its signature: where it comes from (SLSA provenance) and what the gate found.

Pure: the predicates of two in-toto statements. Nothing here holds a time or a host, so signing the same evidence again
gives the same bytes. Scores stay in the eval report, which the verdict names by digest.
Sources: slsa.dev/spec/v1.0/provenance; in-toto/attestation, spec/predicates/test-result.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

PROVENANCE = "https://slsa.dev/provenance/v1"
VERDICT = "https://in-toto.io/attestation/test-result/v0.1"
BUILD_TYPE = "https://liftlock.dev/build/modelcar/v1"
_RESULTS = {"passed": "PASSED", "rejected": "FAILED", "inconclusive": "WARNED"}


class PredicateInvalid(ValueError):
    """A predicate lacks what its type requires."""


@dataclass(frozen=True)
class Material:
    """Something the image was made from. `algorithm` is sha256 or gitCommit; `uri` may be empty."""

    name: str
    algorithm: str
    digest: str
    uri: str = ""


@dataclass(frozen=True)
class Provenance:
    """Who built the image, from what, and how. `builder` is a URI; `parameters` is what a person chose."""

    builder: str
    builder_version: str
    invocation: str
    materials: tuple[Material, ...]
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class Verdict:
    """The gate's decision; `evidence` is the sha256 (hexadecimal) of each report and policy by its name."""

    verdict: Literal["passed", "rejected", "inconclusive"]
    evidence: Mapping[str, str]
    passed_rules: tuple[str, ...]
    failed_rules: tuple[str, ...]


def provenance_predicate(made: Provenance) -> dict[str, Any]:
    """A SLSA v1 provenance predicate. Raises PredicateInvalid."""
    predicate = {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": dict(made.parameters),
            "internalParameters": {},
            "resolvedDependencies": [_resource(material) for material in made.materials],
        },
        "runDetails": {
            "builder": {"id": made.builder, "version": {"liftlock": made.builder_version}},
            "metadata": {"invocationId": made.invocation},
        },
    }
    check_predicate(PROVENANCE, predicate)
    return predicate


def verdict_predicate(found: Verdict) -> dict[str, Any]:
    """An in-toto test-result predicate: inconclusive is WARNED, which no policy should take for PASSED."""
    evidence = sorted(found.evidence.items())
    predicate = {
        "result": _RESULTS[found.verdict],
        "configuration": [{"name": name, "digest": {"sha256": sha256}} for name, sha256 in evidence],
        "passedTests": list(found.passed_rules),
        "failedTests": list(found.failed_rules),
    }
    check_predicate(VERDICT, predicate)
    return predicate


def check_predicate(predicate_type: str, predicate: Mapping[str, Any]) -> None:
    """Raises PredicateInvalid where a field that the predicate's specification requires is absent or of another kind."""
    required = {PROVENANCE: _PROVENANCE_FIELDS, VERDICT: _VERDICT_FIELDS}.get(predicate_type, {})
    for path, kind in required.items():
        value: Any = predicate
        for key in path.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        if not isinstance(value, kind) or value == "":
            raise PredicateInvalid(f"a predicate of type {predicate_type} has no {path}; its specification requires it")
    if predicate_type == VERDICT and predicate["result"] not in _RESULTS.values():
        raise PredicateInvalid(f"the result is {predicate['result']!r}; it must be PASSED, WARNED or FAILED")


def _resource(material: Material) -> dict[str, Any]:
    if not material.digest:
        raise PredicateInvalid(f"the material {material.name} has no digest; provenance names exact bytes")
    named = {"name": material.name, "digest": {material.algorithm: material.digest}}
    return named | ({"uri": material.uri} if material.uri else {})


_PROVENANCE_FIELDS: dict[str, type] = {
    "buildDefinition.buildType": str,
    "buildDefinition.externalParameters": dict,
    "runDetails.builder.id": str,
}
_VERDICT_FIELDS: dict[str, type] = {"result": str, "configuration": list}
