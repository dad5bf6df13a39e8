"""The two admission policies for the GPU-fit stamp: the same cases, judged by a real API server and by Kyverno's CLI."""

import copy
import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from serving.fit.cluster import Defaults, check_manifests
from serving.fit.manifest_files import read_manifests
from serving.fit.model_lookup import ModelLookup
from serving.fit.open_model import Places
from serving.fit.stamp import ANNOTATION, stamp
from serving.fit.stamping import write_stamps
from tests.fix_api_server import ApiServer, find_program
from tests.fix_fit import SMOLLM2_CONFIG
from tests.fix_manifests import deployment, pod_spec, write

POLICIES = Path(__file__).parents[1] / "deploy" / "policies" / "gpu-fit"
LABEL = {"liftlock.dev/gpu-fit": "required"}
URI = f"oci://registry.example.com/models/router@sha256:{'a' * 64}"
ARGS = ["--model=/mnt/models", "--max-model-len=8192", '--override={"a": "b\\c"}', "--chat=line\none\ttab", "--x=ü"]
SELECTOR = {"cloud.google.com/gke-accelerator": "nvidia-l4"}
Pod = dict[str, Any]


def load(name: str) -> dict[str, Any]:
    document: dict[str, Any] = YAML(typ="safe").load((POLICIES / name).read_text())
    return document


def container(name: str = "vllm", **fields: Any) -> dict[str, Any]:
    base = {
        "name": name,
        "image": "vllm/vllm-openai:v0.23.0",
        "command": ["vllm", "serve"],
        "args": list(ARGS),
        "resources": {"limits": {"nvidia.com/gpu": "1"}},
        "env": [{"name": "STORAGE_URI", "value": URI}],
    }
    return base | fields


def stamp_of(pod: Pod, verdict: Any = "fits", uri: str = URI) -> str:
    """Of the pod as it is now."""
    spec = pod["spec"]
    listed = [*spec["containers"], *spec.get("initContainers", [])]
    args = {one["name"]: [*one.get("command", []), *one.get("args", [])] for one in listed}
    images = [volume["image"]["reference"] for volume in spec.get("volumes", []) if "image" in volume]
    return stamp(
        args,
        gpu="nvidia-l4",
        model=f"sha256:{'b' * 64}",
        selector=spec.get("nodeSelector", {}),
        sources=[uri, *images],
        verdict=verdict,
    )


def pod(*containers: dict[str, Any], stamped: bool = True, **spec: Any) -> Pod:
    made: Pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "router", "annotations": {"other": "note"}},
        "spec": {"containers": list(containers or (container(),)), "nodeSelector": dict(SELECTOR)} | spec,
    }
    if stamped:
        made["metadata"]["annotations"][ANNOTATION] = stamp_of(made)
    return made


def changed(change: Any, original: Pod | None = None) -> Pod:
    """A stamped pod that was changed after it was stamped."""
    made = copy.deepcopy(original or pod())
    change(made["spec"])
    return made


def restamped(text: str) -> Pod:
    made = pod()
    made["metadata"]["annotations"][ANNOTATION] = text
    return made


def cpu_pod() -> Pod:
    return pod(container(resources={"limits": {"cpu": "1"}}), stamped=False)


def image_volume(reference: str) -> list[dict[str, Any]]:
    return [{"name": "model", "image": {"reference": reference, "pullPolicy": "IfNotPresent"}}]


def set_args(words: list[str]) -> Any:
    return lambda spec: spec["containers"][0].update(args=words)


CASES: dict[str, tuple[Pod, bool]] = {
    "stamped": (pod(), True),
    "stamped-tight": (restamped(stamp_of(pod(), "tight")), True),
    "no-gpu-no-stamp": (cpu_pod(), True),
    "no-command": (pod({k: v for k, v in container().items() if k != "command"}), True),
    "no-arguments": (pod({k: v for k, v in container().items() if k not in ("command", "args", "env")}), True),
    "two-gpu-containers": (pod(container(), container("second", args=["--b"])), True),
    "sidecar-without-gpu-may-change": (
        changed(
            lambda spec: spec["containers"][1].update(args=["changed"]),
            pod(container(), container("proxy", resources={})),
        ),
        True,
    ),
    "image-volume": (pod(volumes=image_volume(URI.removeprefix("oci://"))), True),
    "no-selector": (pod(nodeSelector={}), True),
    "other-label-may-change": (changed(lambda spec: spec["nodeSelector"].update(zone="a")), True),
    "no-stamp": (pod(stamped=False), False),
    "no-stamp-and-no-annotations": (
        {**pod(stamped=False), "metadata": {"name": "router"}},
        False,
    ),
    "empty-stamp": (restamped(""), False),
    "stamp-is-a-word": (restamped("yes"), False),
    "argument-changed": (changed(set_args(["--model=/mnt/models", "--max-model-len=32768"])), False),
    "argument-added": (changed(set_args([*ARGS, "--max-num-seqs=512"])), False),
    "argument-removed": (changed(set_args(ARGS[:-1])), False),
    "arguments-reordered": (changed(set_args(ARGS[::-1])), False),
    "arguments-joined": (changed(set_args(['","'.join(ARGS)])), False),
    "arguments-gone": (changed(lambda spec: spec["containers"][0].pop("args")), False),
    "command-changed": (changed(lambda spec: spec["containers"][0].update(command=["bash"])), False),
    "container-renamed": (changed(lambda spec: spec["containers"][0].update(name="other")), False),
    "second-gpu-container-added": (
        changed(lambda spec: spec["containers"].append(container("more", args=["x"]))),
        False,
    ),
    "gpu-init-container-added": (
        changed(lambda spec: spec.update(initContainers=[container("sidecar", restartPolicy="Always", args=["x"])])),
        False,
    ),
    "mig-slice-without-stamp": (
        pod(container(resources={"limits": {"nvidia.com/mig-1g.10gb": "1"}}), stamped=False),
        False,
    ),
    "claim-without-stamp": (
        pod(
            container(resources={"claims": [{"name": "gpu"}]}),
            stamped=False,
            resourceClaims=[{"name": "gpu", "resourceClaimName": "gpu"}],
        ),
        False,
    ),
    "selector-changed": (
        changed(lambda spec: spec["nodeSelector"].update({"cloud.google.com/gke-accelerator": "nvidia-tesla-t4"})),
        False,
    ),
    "selector-removed": (changed(lambda spec: spec.update(nodeSelector={})), False),
    "selector-added": (changed(lambda spec: spec.update(nodeSelector=SELECTOR), pod(nodeSelector={})), False),
    "other-model-uri": (
        changed(lambda spec: spec["containers"][0].update(env=[{"name": "STORAGE_URI", "value": URI[:-1] + "b"}])),
        False,
    ),
    "model-uri-from-a-secret": (
        changed(
            lambda spec: spec["containers"][0].update(
                env=[{"name": "STORAGE_URI", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]
            )
        ),
        False,
    ),
    "other-image-volume": (
        changed(
            lambda spec: spec.update(volumes=image_volume(f"registry.example.com/other@sha256:{'c' * 64}")),
            pod(volumes=image_volume(URI.removeprefix("oci://"))),
        ),
        False,
    ),
    "verdict-is-no": (restamped(stamp_of(pod(), "does_not_fit")), False),
    "argument-that-looks-like-a-stamp": (
        changed(set_args(["x"]), pod(container(args=['"vllm":["vllm","serve","x"]', '"verdict":"fits"']))),
        False,
    ),
}
ADMITTED = {name: admitted for name, (_, admitted) in CASES.items()}


def test_both_policies_hold_the_same_expressions() -> None:
    rule = load("kyverno/policy.yaml")["spec"]["rules"][0]
    policy, binding = load("admission/policy.yaml")["spec"], load("admission/binding.yaml")["spec"]
    assert rule["validate"]["cel"]["variables"] == policy["variables"]
    assert rule["validate"]["cel"]["expressions"] == policy["validations"]
    assert len(policy["validations"]) == 5
    resources = rule["match"]["any"][0]["resources"]
    assert resources["namespaceSelector"] == binding["matchResources"]["namespaceSelector"] == {"matchLabels": LABEL}
    assert rule["validate"]["failureAction"] == "Enforce"
    assert (policy["failurePolicy"], binding["validationActions"]) == ("Fail", ["Deny"])
    assert "failurePolicy" not in load("kyverno/policy.yaml")["spec"]  # Kyverno's default is Fail


def test_the_stamp_is_one_text_of_json() -> None:
    said = json.loads(pod()["metadata"]["annotations"][ANNOTATION])
    assert said["args"] == {"vllm": ["vllm", "serve", *ARGS]}
    assert (said["verdict"], said["gpu"], said["selector"], said["sources"]) == ("fits", "nvidia-l4", SELECTOR, [URI])
    assert said["digest"].startswith("sha256:")


def test_the_digest_is_of_model_and_arguments() -> None:
    def digest(**changes: Any) -> str:
        values: dict[str, Any] = {"gpu": "g", "model": "m", "selector": {}, "sources": [], "verdict": "fits"}
        return str(json.loads(stamp({"c": changes.pop("args", ["a"])}, **values | changes))["digest"])

    assert digest() == digest() == digest(verdict="tight")
    assert len({digest(), digest(args=["b"]), digest(model="n"), digest(gpu="h"), digest(sources=["s"])}) == 5


@pytest.fixture(scope="module")
def guarded(api_server: ApiServer) -> str:
    """A labelled namespace in a cluster whose policy already counts: a new one takes the server a moment."""
    for name, path in (("policy", "validatingadmissionpolicies"), ("binding", "validatingadmissionpolicybindings")):
        document = load(f"admission/{name}.yaml")
        api_server.apply(f"/apis/admissionregistration.k8s.io/v1/{path}/liftlock-gpu-fit", document)
    namespace = api_server.namespace(LABEL)
    deadline = time.monotonic() + 30
    while api_server.create_pod(namespace, pod(stamped=False)).status_code != 422:
        assert time.monotonic() < deadline, "the policy never took effect"
        time.sleep(0.2)
    return namespace


@pytest.mark.parametrize("case", CASES)
def test_the_api_server_admits_and_denies(api_server: ApiServer, guarded: str, case: str) -> None:
    answer = api_server.create_pod(guarded, CASES[case][0])
    assert (answer.status_code == 201) is ADMITTED[case], answer.text
    if not ADMITTED[case]:
        assert answer.status_code == 422  # denied by a validation, not by an error in the policy
        assert "liftlock.dev/gpu-fit" in answer.json()["message"]
        assert "liftlock fit --manifests" in answer.json()["message"]
        assert "failed expression" not in answer.json()["message"]


def test_the_policy_compiles_without_a_warning(api_server: ApiServer, guarded: str) -> None:
    path = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies/liftlock-gpu-fit"
    document = load("admission/policy.yaml") | {"metadata": {"name": "type-check"}}
    answer = api_server.client.post(path.rpartition("/")[0], params={"dryRun": "All"}, json=document)
    assert answer.status_code == 201, answer.text
    assert "warning" not in answer.headers


def test_other_namespaces_are_left_alone(api_server: ApiServer, guarded: str) -> None:
    namespace = api_server.namespace({})
    assert guarded != namespace
    assert api_server.create_pod(namespace, pod(stamped=False)).status_code == 201


def test_a_running_pod_can_be_updated(api_server: ApiServer, guarded: str) -> None:
    """A label on a stamped pod, and its deletion: only creation is judged."""
    made = pod()
    assert api_server.create_pod(guarded, made, dry_run=False).status_code == 201
    patch = {"metadata": {"annotations": {ANNOTATION: "gone"}}}
    path = f"/api/v1/namespaces/{guarded}/pods/router"
    headers = {"content-type": "application/merge-patch+json"}
    assert api_server.client.patch(path, json=patch, headers=headers).status_code == 200
    assert api_server.client.delete(path).status_code == 200


def test_a_stamped_deployment_makes_admitted_pods(api_server: ApiServer, guarded: str, tmp_path: Path) -> None:
    """`liftlock fit --manifests` and admission agree on the pod that the cluster makes of the manifest."""
    model = tmp_path / "models" / "org" / "small"
    model.mkdir(parents=True)
    (model / "config.json").write_text(json.dumps(SMOLLM2_CONFIG))
    folder = write(tmp_path / "m", deployment(pod_spec()))
    files = read_manifests(folder)
    write_stamps(files, check_manifests(files, ModelLookup(tmp_path / "models", Places()), Defaults()), folder)
    template = YAML(typ="safe").load((folder / "all.yaml").read_text())["spec"]["template"]
    made = {"apiVersion": "v1", "kind": "Pod", **template}
    made["metadata"]["name"] = "from-template"
    answer = api_server.create_pod(guarded, made)
    assert answer.status_code == 201, answer.text
    made["spec"]["containers"][0]["args"].append("--max-num-seqs=1024")
    assert "is of other arguments" in api_server.create_pod(guarded, made).text


def kyverno_case(folder: Path, results: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """`kyverno test` with every case as a pod named by it; `results`: pass, fail or skip by case."""
    yaml = YAML(typ="safe")
    (folder / "policy.yaml").write_text((POLICIES / "kyverno" / "policy.yaml").read_text())
    with (folder / "resources.yaml").open("w") as file:
        yaml.dump_all([_named(case, namespace) for case in CASES for namespace in ("guarded", "free")], file)
    values = {
        "apiVersion": "cli.kyverno.io/v1alpha1",
        "kind": "Values",
        "metadata": {"name": "values"},
        "namespaceSelector": [{"name": "guarded", "labels": LABEL}, {"name": "free", "labels": {"a": "b"}}],
    }
    test = {
        "apiVersion": "cli.kyverno.io/v1alpha1",
        "kind": "Test",
        "metadata": {"name": "gpu-fit"},
        "policies": ["policy.yaml"],
        "resources": ["resources.yaml"],
        "variables": "values.yaml",
        "results": [
            {"policy": "liftlock-gpu-fit", "rule": "stamped", "kind": "Pod", "resources": [name], "result": result}
            for name, result in results.items()
        ],
    }
    for name, document in (("values.yaml", values), ("kyverno-test.yaml", test)):
        with (folder / name).open("w") as file:
            yaml.dump(document, file)
    return subprocess.run(
        [find_program("kyverno"), "test", str(folder), "--detailed-results", "--remove-color"],
        capture_output=True,
        text=True,
        timeout=120,
    )


def _named(case: str, namespace: str) -> Pod:
    made = copy.deepcopy(CASES[case][0])
    made["metadata"] |= {"name": case, "namespace": namespace}
    return made


def test_kyverno_gives_the_same_verdicts(tmp_path: Path) -> None:
    expected = {f"guarded/{case}": "pass" if admitted else "fail" for case, admitted in ADMITTED.items()}
    done = kyverno_case(tmp_path, expected)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Test Summary: {len(CASES)} tests passed and 0 tests failed" in done.stdout


def test_kyverno_test_can_fail(tmp_path: Path) -> None:
    """The run above would not notice a policy that matches nothing, unless a wrong expectation is an error."""
    done = kyverno_case(tmp_path, {"guarded/no-stamp": "pass"})
    assert done.returncode != 0
