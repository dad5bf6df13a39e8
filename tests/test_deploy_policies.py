"""Policies for digests, queues and signatures: the same cases, judged by a real API server and by Kyverno's CLI.

The GPU-fit policy has tests of its own (test_deploy_gpu_fit_policies.py); here it is part of what is installed together.
"""

from __future__ import annotations

import copy
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fix_api_server import ApiServer, find_program, running_api_server
from tests.fix_deploy import DEPLOY, OVERLAYS, Document, Objects, rendered

POLICIES = DEPLOY / "policies"
DIGEST, SIGNED = f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"
CAR = f"registry.example.com/models/router@{DIGEST}"
SIGNATURE, QUEUE = "liftlock.dev/modelcar-signature", "kueue.x-k8s.io/queue-name"
RULES = {"pinned-images": "pinned", "queue-name": "queued", "signed-modelcar": "named"}
LABELS = {
    "pinned-images": {"liftlock.dev/pinned-images": "required"},
    "queue-name": {"llm-platform/kueue-managed": "true"},
    "signed-modelcar": {"liftlock.dev/signed-modelcar": "required"},
}
INSTALLED = {"gpu-fit", *RULES}


def container(image: str = f"acme.dev/x@{DIGEST}", **fields: Any) -> Document:
    return {"name": "main", "image": image, **fields}


def pod(*containers: Document, labels: dict[str, str] | None = None, note: str | None = None, **spec: Any) -> Document:
    metadata: Document = {"name": "x", **({"labels": labels} if labels else {})}
    if note is not None:
        metadata["annotations"] = {SIGNATURE: note}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"containers": list(containers or (container(),)), **spec},
    }


def job(labels: dict[str, str] | None, *containers: Document) -> Document:
    claims = [{"name": "gpu", "resourceClaimName": "gpu"}]
    template = pod(*containers, labels=labels, restartPolicy="Never", resourceClaims=claims)
    return {
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x", **({"labels": labels} if labels else {})},
        "spec": {"template": {"metadata": {"labels": {QUEUE: "gpu"}}, "spec": template["spec"]}},
    }  # fmt: skip


def volume(reference: str) -> list[Document]:
    return [{"name": "model", "image": {"reference": reference}}, {"name": "tmp", "emptyDir": {}}]


def asking(name: str = "nvidia.com/gpu", **fields: Any) -> Document:
    return container(resources={"limits": {name: "1"}}, **fields)


def taking(uri: str) -> Document:
    return container(env=[{"name": "OTHER", "value": "x"}, {"name": "STORAGE_URI", "value": uri}])


CLAIM = {"resources": {"claims": [{"name": "gpu"}]}}
CASES: dict[str, dict[str, tuple[Document, bool]]] = {
    "pinned-images": {
        "by-digest": (pod(), True),
        "tag-and-digest": (pod(container(f"acme.dev/x:1@{DIGEST}")), True),
        "volume-by-digest": (pod(volumes=volume(CAR)), True),
        "by-tag": (pod(container("acme.dev/x:1")), False),
        "as-shipped": (pod(container("registry.example.com/liftlock/flows:digest-not-set")), False),
        "no-tag": (pod(container("acme.dev/x")), False),
        "second-by-tag": (pod(container(), container("y:1", name="second")), False),
        "init-by-tag": (pod(initContainers=[container("y:1", name="init")]), False),
        "volume-by-tag": (pod(volumes=volume("acme.dev/models:1")), False),
        "short-digest": (pod(container("acme.dev/x@sha256:abc")), False),
        "other-algorithm": (pod(container(f"acme.dev/x@sha512:{'a' * 128}")), False),
        "digest-in-the-middle": (pod(container(f"acme.dev/x@{DIGEST}0")), False),
    },
    "queue-name": {
        "queued-pod": (pod(asking(), labels={QUEUE: "mlops-gpu"}), True),
        "queued-job": (job({QUEUE: "mlops-gpu"}, asking()), True),
        "no-gpu-pod": (pod(), True),
        "no-gpu-job": (job(None, container()), True),
        "pod": (pod(asking()), False),
        "pod-with-an-empty-name": (pod(asking(), labels={QUEUE: ""}), False),
        "pod-with-another-label": (pod(asking(), labels={"queue": "mlops-gpu"}), False),
        # Of a Job without any label the API server takes those of its pods, so it has one here.
        "job-whose-pods-are-labelled": (job({"app": "x"}, asking()), False),
        "init-container": (pod(initContainers=[asking(name="nvidia.com/gpu") | {"name": "init"}]), False),
        "slice": (pod(asking("nvidia.com/mig-1g.10gb")), False),
        "claim": (pod(container(**CLAIM), resourceClaims=[{"name": "gpu", "resourceClaimName": "gpu"}]), False),
        "job-with-a-claim": (job({"app": "x"}, container(**CLAIM)), False),
    },
    "signed-modelcar": {
        "no-modelcar": (pod(), True),
        "bucket": (pod(taking("gs://acme/model")), True),
        "named": (pod(taking(f"oci://{CAR}"), note=f"{CAR} {SIGNED}"), True),
        "native-named": (pod(taking(f"oci+native://{CAR}"), note=f"{CAR} {SIGNED}"), True),
        "volume-named": (pod(volumes=volume(CAR), note=f"{CAR} {SIGNED}"), True),
        "two-named": (
            pod(taking(f"oci://{CAR}"), volumes=volume(f"acme.dev/y@{DIGEST}"), note=f"acme.dev/y@{DIGEST} {SIGNED}\n{CAR} {SIGNED}"),
            True,
        ),
        "not-named": (pod(taking(f"oci://{CAR}")), False),
        "upper-case": (pod(taking(f"OCI://{CAR}")), False),
        "volume-not-named": (pod(volumes=volume(CAR)), False),
        "one-of-two": (pod(taking(f"oci://{CAR}"), volumes=volume(f"acme.dev/y@{DIGEST}"), note=f"{CAR} {SIGNED}"), False),
        "another": (pod(taking(f"oci://{CAR}"), note=f"{CAR.replace('router', 'other')} {SIGNED}"), False),
        "another-digest": (pod(taking(f"oci://{CAR}"), note=f"{CAR[:-1]}b {SIGNED}"), False),
        "by-tag": (pod(taking("oci://acme.dev/y:1"), note=f"acme.dev/y:1 {SIGNED}"), False),
        "no-payload": (pod(taking(f"oci://{CAR}"), note=f"{CAR} sha256:abc"), False),
        "a-word": (pod(taking(f"oci://{CAR}"), note="yes"), False),
    },
}  # fmt: skip
JUDGED = [(policy, case) for policy, cases in CASES.items() for case in cases]


def load(name: str) -> Document:
    document: Document = yaml.safe_load((POLICIES / name).read_text())
    return document


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """With all policies, refusing: what `kubectl apply -k deploy/policies/enforce/admission` installs."""
    with running_api_server(tmp_path_factory.mktemp("policies")) as running:
        objects = Objects(running)
        for document in rendered(POLICIES / "enforce" / "admission"):
            objects.put(document)
        _wait_until_enforced(running)
        yield running


def _wait_until_enforced(server: ApiServer) -> None:
    """A new policy takes the server a moment."""
    deadline = time.monotonic() + 30
    for policy in CASES:
        space = server.namespace(LABELS[policy])
        refused = next(document for document, admitted in CASES[policy].values() if not admitted)
        while create(server, space, refused).status_code == 201:
            assert time.monotonic() < deadline, f"{policy} never took effect"
            time.sleep(0.2)


def create(server: ApiServer, space: str, document: Document) -> Any:
    where = "/apis/batch/v1" if document["kind"] == "Job" else "/api/v1"
    path = f"{where}/namespaces/{space}/{document['kind'].lower()}s"
    return server.client.post(path, params={"dryRun": "All"}, json=document)


@pytest.mark.parametrize(("policy", "case"), JUDGED)
def test_the_api_server_admits_and_denies(server: ApiServer, policy: str, case: str) -> None:
    document, admitted = CASES[policy][case]
    answer = create(server, server.namespace(LABELS[policy]), document)
    assert (answer.status_code == 201) is admitted, answer.text
    if not admitted:
        message = answer.json()["message"]
        assert answer.status_code == 422 and f"liftlock-{policy}" in message  # a validation, not an error in the policy
        assert "; required: " in message and "failed expression" not in message
    assert create(server, server.namespace({}), document).status_code == 201  # other namespaces are left alone


@pytest.mark.parametrize("policy", CASES)
def test_the_policy_compiles_and_reads_every_field_it_names(server: ApiServer, policy: str) -> None:
    path = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"
    document = load(f"{policy}/admission/policy.yaml") | {"metadata": {"name": "type-check"}}
    answer = server.client.post(path, params={"dryRun": "All"}, json=document)
    assert answer.status_code == 201 and "warning" not in answer.headers, answer.text


def test_pods_of_the_overlay_are_refused_until_a_digest_is_set(server: ApiServer) -> None:
    from tests.fix_complete_cluster import IMAGE
    from tests.fix_deploy import pod_templates

    space = server.namespace(LABELS["pinned-images"])
    for _, made in pod_templates(rendered(DEPLOY / "overlays" / "gke-l4")):
        assert "digest-not-set" in create(server, space, made).json()["message"]
        made["spec"]["containers"][0]["image"] = IMAGE
        assert create(server, space, made).status_code == 201


def test_audit_tells_and_refuses_nothing(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The warning is what whoever applies sees."""
    with running_api_server(tmp_path_factory.mktemp("audit")) as server:
        objects = Objects(server)
        for document in rendered(POLICIES / "audit" / "admission"):
            objects.put(document)
        space, deadline = server.namespace(LABELS["pinned-images"]), time.monotonic() + 30
        while "warning" not in (answer := create(server, space, pod(container("acme.dev/x:1")))).headers:
            assert time.monotonic() < deadline, "it never told"
            time.sleep(0.2)
        assert answer.status_code == 201 and "Not pinned by digest: acme.dev/x:1" in answer.headers["warning"]


def kyverno(folder: Path, policy: str, expected: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """`kyverno test` with every case as an object named by it, in a labelled namespace; results by case."""
    named = []
    for case, (document, _) in CASES[policy].items():
        made = copy.deepcopy(document)
        made["metadata"] |= {"name": case, "namespace": "guarded"}
        named.append(made)
    kind = {case: document["kind"] for case, (document, _) in CASES[policy].items()}
    results = [
        {
            "policy": f"liftlock-{policy}",
            "rule": RULES[policy],
            "kind": kind[case],
            "resources": [f"guarded/{case}"],
            "result": result,
        }
        for case, result in expected.items()
    ]
    values = {"apiVersion": "cli.kyverno.io/v1alpha1", "kind": "Values", "metadata": {"name": "values"},
              "namespaceSelector": [{"name": "guarded", "labels": LABELS[policy]}]}  # fmt: skip
    test = {"apiVersion": "cli.kyverno.io/v1alpha1", "kind": "Test", "metadata": {"name": policy}, "policies": ["policy.yaml"],
            "resources": ["resources.yaml"], "variables": "values.yaml", "results": results}  # fmt: skip
    (folder / "policy.yaml").write_text((POLICIES / policy / "kyverno" / "policy.yaml").read_text())
    (folder / "resources.yaml").write_text("\n---\n".join(json.dumps(one) for one in named))
    (folder / "values.yaml").write_text(json.dumps(values))
    (folder / "kyverno-test.yaml").write_text(json.dumps(test))
    command = [find_program("kyverno"), "test", str(folder), "--detailed-results", "--remove-color"]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("policy", CASES)
def test_kyverno_gives_the_same_verdicts(tmp_path: Path, policy: str) -> None:
    expected = {case: "pass" if admitted else "fail" for case, (_, admitted) in CASES[policy].items()}
    done = kyverno(tmp_path, policy, expected)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Test Summary: {len(expected)} tests passed and 0 tests failed" in done.stdout


def test_kyverno_test_can_fail(tmp_path: Path) -> None:
    assert kyverno(tmp_path, "pinned-images", {"by-tag": "pass"}).returncode != 0


@pytest.mark.parametrize("policy", CASES)
def test_twins_hold_the_same_expressions(policy: str) -> None:
    rule = load(f"{policy}/kyverno/policy.yaml")["spec"]["rules"][0]
    spec, binding = load(f"{policy}/admission/policy.yaml")["spec"], load(f"{policy}/admission/binding.yaml")["spec"]
    assert rule["name"] == RULES[policy]
    assert rule["validate"]["cel"]["variables"] == spec["variables"]
    assert rule["validate"]["cel"]["expressions"] == spec["validations"]
    resources = rule["match"]["any"][0]["resources"]
    assert (
        resources["namespaceSelector"]
        == binding["matchResources"]["namespaceSelector"]
        == {"matchLabels": LABELS[policy]}
    )
    kinds = {
        resource[:-1].capitalize() for one in spec["matchConstraints"]["resourceRules"] for resource in one["resources"]
    }
    assert set(resources["kinds"]) == kinds
    assert (rule["validate"]["failureAction"], binding["validationActions"], spec["failurePolicy"]) == (
        "Enforce",
        ["Deny"],
        "Fail",
    )


@pytest.mark.parametrize("engine", ["admission", "kyverno"])
def test_audit_and_enforce_are_the_same_policies_and_off_by_default(engine: str) -> None:
    audit, enforce = ({_key(one): one for one in rendered(POLICIES / way / engine)} for way in ("audit", "enforce"))
    assert set(audit) == set(enforce)
    assert {name.removeprefix("liftlock-") for _, name in enforce} == INSTALLED
    for key, one in audit.items():
        if one["kind"] == "ValidatingAdmissionPolicyBinding":
            assert (one["spec"]["validationActions"], enforce[key]["spec"]["validationActions"]) == (
                ["Audit", "Warn"],
                ["Deny"],
            )
        if one["kind"] == "ClusterPolicy":
            actions = [which["spec"]["rules"][0]["validate"]["failureAction"] for which in (one, enforce[key])]
            assert actions == ["Audit", "Enforce"] and len(one["spec"]["rules"]) == 1
    for overlay in OVERLAYS:
        assert not any(
            "Policy" in one["kind"] and one["kind"] != "NetworkPolicy"
            for one in rendered(DEPLOY / "overlays" / overlay)
        )


def _key(document: Document) -> tuple[str, str]:
    return document["kind"], document["metadata"]["name"]
