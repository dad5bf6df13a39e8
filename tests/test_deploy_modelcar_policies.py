"""The Kyverno policies for modelcars: Kyverno's CLI judges pods and InferenceServices against a registry on loopback.

A real API server takes the policies where Kyverno's CustomResourceDefinitions are found (tests/fix_api_server.py).
"""

import json
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fix_api_server import ApiServer, find_definition, find_program
from tests.fix_kyverno_registry import REFUSED, JudgedImages, values_file

FOLDER = Path(__file__).parent.parent / "deploy" / "policies" / "modelcar"
RULES = {
    "liftlock-modelcar-pods": "signed-modelcar-containers",
    "liftlock-modelcar-image-volumes": "signed-image-volumes",
    "liftlock-modelcar-storage-uri": "signed-storage-uri",
}
OTHER = "vllm/vllm-openai:v0.23.0"  # not a modelcar; never asked for
Resource = dict[str, Any]
Results = list[tuple[str, str]]


def pod(name: str, *images: str, init: tuple[str, ...] = (), volumes: tuple[str, ...] = ()) -> Resource:
    spec: dict[str, Any] = {
        "containers": [{"name": f"c{number}", "image": image} for number, image in enumerate(images)],
        "initContainers": [{"name": f"i{number}", "image": image} for number, image in enumerate(init)],
        "volumes": [{"name": f"v{n}", "image": {"reference": reference}} for n, reference in enumerate(volumes)]
        + [{"name": "scratch", "emptyDir": {}}],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"}, "spec": spec}


def service(name: str, **predictor: Any) -> Resource:
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"predictor": {"minReplicas": 1, **predictor}},
    }


def model(uri: str) -> dict[str, Any]:
    return {"modelFormat": {"name": "huggingface"}, "storageUri": uri}


def llm(name: str, uri: str) -> Resource:
    kind = {"apiVersion": "serving.kserve.io/v1alpha2", "kind": "LLMInferenceService"}
    return kind | {"metadata": {"name": name, "namespace": "default"}, "spec": {"model": {"uri": uri}}}


def deployment(name: str, image: str, volume: str) -> Resource:
    template = {"metadata": {"labels": {"app": name}}, "spec": pod(name, image, volumes=(volume,))["spec"]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"app": name}}, "template": template},
    }


def judge(folder: Path, images: JudgedImages, resources: list[Resource]) -> dict[str, Results]:
    """(rule, pass | fail | error | skip) of all rules, by the resource's name."""
    file = folder / "resources.yaml"
    file.write_text("\n---\n".join(json.dumps(resource) for resource in resources))
    values = values_file(folder, RULES, images.key)
    policies = [str(FOLDER / f"{name}.yaml") for name in ("pods", "image-volumes", "storage-uri")]
    command = [find_program("kyverno"), "apply", *policies, "--resource", str(file), "--registry", "--policy-report"]
    done = subprocess.run(
        [*command, "--values-file", str(values)], capture_output=True, text=True, timeout=120, check=False
    )
    found: dict[str, Results] = {resource["metadata"]["name"]: [] for resource in resources}
    _, start, report = done.stdout.partition("apiVersion:")
    for document in yaml.safe_load_all(start + report):
        for result in document.get("results", ()):
            found[result["resources"][0]["name"]].append((result["rule"], result["result"]))
    assert start, done.stdout + done.stderr
    return found


def admitted(results: Results) -> bool:
    return not {"fail", "error"} & {result for _, result in results}


@pytest.fixture(scope="module")
def verdicts(judged_images: JudgedImages, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Results]:
    """All cases in one run: each start of the CLI costs a second."""
    find_program("kyverno")
    resources = []
    for case, image in judged_images.references.items():
        resources += [
            pod(f"{case}-sidecar", OTHER, image),
            pod(f"{case}-init", OTHER, init=(image,)),
            pod(f"{case}-volume", OTHER, volumes=(image,)),
            service(f"{case}-modelcar", model=model(f"oci://{image}")),
            service(f"{case}-fetch", model=model(f"oci+fetch://{image}")),
            service(f"{case}-native", model=model(f"oci+native://{image}")),
            service(f"{case}-huggingface", huggingface={"storageUri": f"oci://{image}"}),
            service(f"{case}-list", storageUris=[{"uri": f"oci://{image}", "mountPath": "/mnt/a"}]),
            llm(f"{case}-llm", f"oci://{image}"),
        ]
    signed, unsigned = judged_images.references["signed"], judged_images.references["unsigned"]
    resources += [
        pod("plain", OTHER),
        pod("second-container", signed, unsigned),
        pod("second-volume", OTHER, volumes=(signed, unsigned)),
        service("bucket", model=model("s3://bucket/model")),
        service("hub", model=model("hf://org/model")),
        service("own-container", containers=[{"name": "c", "image": OTHER}]),
        service("upper-case", model=model(f"OCI://{unsigned}")),
        service("second-uri", storageUris=[{"uri": f"oci://{image}"} for image in (signed, unsigned)]),
        service("first-uri", storageUris=[{"uri": f"oci://{image}"} for image in (unsigned, signed)]),
        service("masked", huggingface={"storageUri": f"oci://{unsigned}"}, storageUris=[{"uri": f"oci://{signed}"}]),
        service("masking", model=model(f"oci://{signed}"), storageUris=[{"uri": f"oci://{unsigned}"}]),
        deployment("workload", OTHER, signed),
    ]
    return judge(tmp_path_factory.mktemp("judge"), judged_images, resources)


PLACES = ("sidecar", "init", "volume", "modelcar", "fetch", "native", "huggingface", "list", "llm")


@pytest.mark.parametrize("place", PLACES)
def test_a_signed_modelcar_that_passed_is_admitted(verdicts: dict[str, Results], place: str) -> None:
    results = verdicts[f"signed-{place}"]
    assert {(rule, "pass") for rule in RULES.values()} & set(results)
    assert admitted(results)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("case", REFUSED)
def test_every_other_modelcar_is_refused(verdicts: dict[str, Results], case: str, place: str) -> None:
    assert not admitted(verdicts[f"{case}-{place}"])


@pytest.mark.parametrize("name", ["plain", "bucket", "hub", "own-container", "workload"])
def test_what_is_no_modelcar_is_left_alone(verdicts: dict[str, Results], name: str) -> None:
    assert admitted(verdicts[name])


@pytest.mark.parametrize(
    "name", ["second-container", "second-volume", "upper-case", "second-uri", "first-uri", "masked", "masking"]
)
def test_a_signed_image_does_not_cover_another(verdicts: dict[str, Results], name: str) -> None:
    assert not admitted(verdicts[name])


def test_without_the_trusted_key_nothing_is_admitted(judged_images: JudgedImages, tmp_path: Path) -> None:
    """The ConfigMap is absent: the CLI gets no values for it."""
    file = tmp_path / "pod.yaml"
    file.write_text(json.dumps(pod("a", judged_images.references["signed"])))
    command = [find_program("kyverno"), "apply", str(FOLDER / "pods.yaml"), "--resource", str(file), "--registry"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert re.search("(fail|error): [1-9]", done.stdout), done.stdout
    assert done.returncode != 0


def test_kustomize_gives_the_three_policies() -> None:
    listed = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["resources"]
    assert {FOLDER / name for name in listed} == set(FOLDER.glob("*.yaml")) - {FOLDER / "kustomization.yaml"}
    names = {yaml.safe_load((FOLDER / name).read_text())["metadata"]["name"] for name in listed}
    assert names == set(RULES)


def test_the_api_server_takes_the_policies(api_server: ApiServer) -> None:
    file = find_definition("kyverno/clusterpolicies.yaml")
    definition = yaml.load(file.read_text(), yaml.CSafeLoader)  # the C loader: the file has 1.4 MB
    name = definition["metadata"]["name"]
    api_server.apply(f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}", definition)
    path = "/apis/kyverno.io/v1/clusterpolicies"
    deadline = time.monotonic() + 60
    while api_server.client.get(path).status_code != 200 and time.monotonic() < deadline:
        time.sleep(0.2)
    for file in ("pods", "image-volumes", "storage-uri"):
        policy = yaml.safe_load((FOLDER / f"{file}.yaml").read_text())
        stored = f"{path}/{policy['metadata']['name']}"
        answer = api_server.client.patch(
            stored,
            params={"fieldManager": "test", "fieldValidation": "Strict"},
            headers={"content-type": "application/apply-patch+yaml"},
            json=policy,
        )
        assert answer.status_code in (200, 201), answer.text
        assert api_server.client.get(stored).json()["spec"]["rules"][0]["verifyImages"][0]["required"] is True
