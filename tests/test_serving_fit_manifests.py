"""vLLM containers of rendered manifests: found in every kind, judged with their node, and stamped."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from serving.fit.cluster import Checked, CheckedPod, Defaults, check_manifests
from serving.fit.manifest_files import read_manifests
from serving.fit.manifests import ManifestInvalid, gpu_containers, node_labels, pods, sources
from serving.fit.model_lookup import ModelLookup
from serving.fit.open_model import Places
from serving.fit.quantity import QuantityInvalid
from serving.fit.stamp import ANNOTATION
from serving.fit.stamping import write_stamps
from tests.fix_fit import LLAMA_8B, SMOLLM2_CONFIG, Config
from tests.fix_manifests import (
    IMAGE,
    L4,
    Object,
    container,
    deployment,
    inference_service,
    llm_inference_service,
    pod_spec,
    write,
)

GIB = 1024**3


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """config.json files alone: org/small (SmolLM2-135M) and org/large (Llama-3.1-8B)."""
    root = tmp_path / "models"
    found: dict[str, Config] = {"org/small": SMOLLM2_CONFIG, "org/large": LLAMA_8B, "router": SMOLLM2_CONFIG}
    for name, config in found.items():
        (root / name).mkdir(parents=True)
        (root / name / "config.json").write_text(json.dumps(config))
    return root


def check(folder: Path, models: Path, gpu: str | None = None) -> tuple[CheckedPod, ...]:
    return check_manifests(read_manifests(folder), ModelLookup(models, Places()), Defaults(gpu))


def only(folder: Path, models: Path, gpu: str | None = None) -> Checked:
    ((one,),) = [pod.containers for pod in check(folder, models, gpu)]
    return one


def finding(tmp_path: Path, models: Path, spec: Object, gpu: str | None = None) -> str:
    """The one finding on a deployment of the pod."""
    (text,) = only(write(tmp_path / "m", deployment(spec)), models, gpu).findings
    return text


@pytest.mark.parametrize(
    "document",
    [
        *(deployment(pod_spec(), kind) for kind in ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job")),
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": pod_spec()},
        {"apiVersion": "v1", "kind": "List", "items": [deployment(pod_spec())]},
        inference_service(pod_spec(container(name="kserve-container"))),
        llm_inference_service(),
    ],
    ids=lambda document: document["kind"],
)
def test_a_container_is_found_in_every_kind_and_fits(tmp_path: Path, models: Path, document: Object) -> None:
    one = only(write(tmp_path / "m", document), models)
    assert one.findings == ()
    assert one.report is not None
    assert (one.report.verdict, one.report.gpu, one.report.max_model_len) == ("fits", "nvidia-l4", 4096)
    assert one.report.engine_version == "0.23.0"
    assert (one.model or "").endswith("org/small")


def test_what_is_no_gpu_workload_is_left_out(tmp_path: Path, models: Path) -> None:
    cpu = container(resources={"limits": {"cpu": "4"}})
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"ports": []}}
    folder = write(tmp_path / "m", deployment(pod_spec(cpu)), service)
    (folder / "kustomization.yaml").write_text("resources: [all.yaml]\n")
    assert check(folder, models) == ()


def test_a_gpu_container_that_is_not_vllm_is_said_and_not_stamped(tmp_path: Path, models: Path) -> None:
    trainer = container("train.py", image="registry.example.com/trainer:1", name="trainer")
    (pod,) = check(write(tmp_path / "m", deployment(pod_spec(trainer))), models)
    assert "does not run vLLM" in pod.containers[0].notes[0]
    assert pod.stamp is None


@pytest.mark.parametrize("gpu_of_selector", ["cloud.google.com/gke-accelerator", "nvidia.com/gpu.product"])
def test_the_selector_decides_the_gpu(tmp_path: Path, models: Path, gpu_of_selector: str) -> None:
    value = {"cloud.google.com/gke-accelerator": "nvidia-tesla-t4", "nvidia.com/gpu.product": "Tesla-T4"}
    spec = pod_spec(nodeSelector={gpu_of_selector: value[gpu_of_selector]})
    one = only(write(tmp_path / "m", deployment(spec)), models, "nvidia-l4")
    assert one.report is not None
    assert one.report.gpu == "nvidia-tesla-t4"
    assert "--dtype=half" in one.report.flags


def test_affinity_to_two_gpus_is_judged_on_both(tmp_path: Path, models: Path) -> None:
    values = ["nvidia-l4", "nvidia-tesla-t4"]
    expression = {"key": "cloud.google.com/gke-accelerator", "operator": "In", "values": values}
    required = {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}
    spec = pod_spec(container("--model=org/large", "--max-model-len=8192", memory="12Gi"), affinity=affinity)
    del spec["nodeSelector"]
    (pod,) = check(write(tmp_path / "m", deployment(spec)), models)
    assert [one.gpu for one in pod.containers] == values
    l4, t4 = (one.report for one in pod.containers)
    assert l4 is not None
    assert t4 is not None
    assert l4.fits
    assert t4.verdict == "does_not_fit"
    assert pod.stamp is None


def test_a_model_that_does_not_fit_is_a_finding_with_a_flag(tmp_path: Path, models: Path) -> None:
    args = ("--model=org/large", "--max-model-len=131072", "--gpu-memory-utilization=0.9")
    (text, *_) = only(write(tmp_path / "m", deployment(pod_spec(container(*args)))), models).findings
    assert text.startswith("It does not fit: ")
    assert "Use --" in text


def test_limits_above_the_node(tmp_path: Path, models: Path) -> None:
    """The host platform's coder-chat: a limit of 20Gi on a machine of 16 GB, of which a pod gets 13 GiB."""
    text = finding(tmp_path, models, pod_spec(container(memory="20Gi")))
    assert "limits.memory is 20.0 GiB and g2-standard-4 gives a pod 13.0 GiB" in text


def test_requests_above_the_node_stay_pending(tmp_path: Path, models: Path) -> None:
    resources = {"limits": {"memory": "20Gi", "nvidia.com/gpu": "1"}, "requests": {"memory": "14Gi"}}
    assert "it stays Pending" in finding(tmp_path, models, pod_spec(container(resources=resources)))
    resources = {"limits": {"memory": "12Gi", "nvidia.com/gpu": "1"}, "requests": {"cpu": "8"}}
    assert "requests.cpu is 8" in finding(tmp_path, models, pod_spec(container(resources=resources)))


def test_shared_memory_above_the_limit(tmp_path: Path, models: Path) -> None:
    """The host platform's qwen-oci: 16Gi of /dev/shm under a limit of 12Gi."""
    mounted = container(volumeMounts=[{"name": "dshm", "mountPath": "/dev/shm"}])  # noqa: S108
    volumes = [{"name": "dshm", "emptyDir": {"medium": "Memory", "sizeLimit": "16Gi"}}]
    assert "may grow to 16.0 GiB" in finding(tmp_path, models, pod_spec(mounted, volumes=volumes))
    volumes[0]["emptyDir"] = {"medium": "Memory", "sizeLimit": "2Gi"}
    assert only(write(tmp_path / "n", deployment(pod_spec(mounted, volumes=volumes))), models).findings == ()


def test_a_toleration_without_a_selector(tmp_path: Path, models: Path) -> None:
    text = finding(tmp_path, models, pod_spec(nodeSelector={}), "nvidia-l4")
    assert "may land on a card without bfloat16 (a T4)" in text
    half = container("--model=org/small", "--dtype=float16", "--max-model-len=4096")
    spec = pod_spec(half, nodeSelector={})
    assert only(write(tmp_path / "half", deployment(spec)), models, "nvidia-l4").findings == ()


def test_a_startup_probe_shorter_than_the_load(tmp_path: Path, models: Path) -> None:
    """120 s to start; SmolLM2's 0.27 GB load in 1 s at 150 MB/s, and its probes allow 30 s."""
    spec = pod_spec(container(startupProbe={"periodSeconds": 10, "failureThreshold": 3}))
    assert "30 s after its start" in finding(tmp_path, models, spec)
    liveness = container(livenessProbe={"initialDelaySeconds": 60, "periodSeconds": 10})
    del liveness["startupProbe"]
    assert "90 s after its start" in finding(tmp_path, models, pod_spec(liveness))


@pytest.mark.parametrize("value", [[], {}, None, "soon", float("inf")])
def test_a_probe_whose_seconds_are_no_number_is_refused(tmp_path: Path, models: Path, value: object) -> None:
    spec = pod_spec(container(startupProbe={"periodSeconds": value}))
    with pytest.raises(ManifestInvalid, match=r"periodSeconds is .*; required: a whole number"):
        finding(tmp_path, models, spec)


def test_a_key_that_is_a_list_is_refused(tmp_path: Path, models: Path) -> None:
    (tmp_path / "x.yaml").write_text("? [a]\n: 1\n? [a]\n: 2\n")
    with pytest.raises(ManifestInvalid, match=r"x\.yaml is no YAML"):
        only(tmp_path, models, "nvidia-l4")


def test_a_memory_limit_below_what_loading_needs(tmp_path: Path, models: Path) -> None:
    text = finding(tmp_path, models, pod_spec(container(memory="3Gi")))
    assert "Loading needs" in text
    assert "memory limit is 3.0 GiB" in text


def test_more_ranks_than_gpus(tmp_path: Path, models: Path) -> None:
    args = ("--model=org/large", "--max-model-len=4096", "-tp", "2")
    text = finding(tmp_path, models, pod_spec(container(*args)))
    assert "over 2 GPUs and the container gets 1" in text


@pytest.mark.parametrize("length", ["auto", "-1"])
def test_an_automatic_length(tmp_path: Path, models: Path, length: str) -> None:
    text = finding(tmp_path, models, pod_spec(container("--model=org/small", f"--max-model-len={length}")))
    assert "shortens the context" in text
    assert "--max-model-len=8192" in text


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (pod_spec(container("--model=org/unknown")), "not below models"),
        (pod_spec(container("--max-model-len=1024")), "names no model"),
        (pod_spec(container("--model=org/small", "--max-model-len=many")), "a number such as 8192"),
        (pod_spec(container("--model=org/small", "--gpu-memory-utilization=1.5")), "at most 1"),
        (pod_spec(container("--model=org/small", "--config=/etc/vllm.yaml")), "not in the manifest"),
        (pod_spec(container(), nodeSelector={"cloud.google.com/gke-accelerator": "nvidia-x1"}), "No GPU 'nvidia-x1'"),
        (pod_spec(container(), nodeSelector={}), "names no GPU"),
    ],
)
def test_what_cannot_be_judged_is_a_finding(tmp_path: Path, models: Path, spec: Object, words: str) -> None:
    (pod,) = check(write(tmp_path / "m", deployment(spec)), models)
    assert words in pod.containers[0].findings[0]
    assert pod.containers[0].report is None
    assert pod.stamp is None


@pytest.mark.parametrize(
    "predictor",
    [
        pod_spec(
            container(
                "--model=/mnt/models", "--max-model-len=4096", "--gpu-memory-utilization=0.6", name="kserve-container",
                env=[{"name": "STORAGE_URI", "value": "oci://ghcr.io/me/router@sha256:" + "a" * 64}],
            )
        ),
        {
            "nodeSelector": L4,
            "model": {
                "modelFormat": {"name": "vLLM"}, "storageUri": "oci://ghcr.io/me/router@sha256:" + "a" * 64,
                "args": ["--max-model-len=4096"], "resources": container()["resources"],
            },
        },
        pod_spec(
            container("--model=/models", "--max-model-len=4096"),
            volumes=[{"name": "m", "image": {"reference": "ghcr.io/me/router@sha256:" + "a" * 64}}],
        ),
    ],
    ids=["env", "storageUri", "image-volume"],
)  # fmt: skip
def test_a_mounted_model_is_looked_up_by_its_uri(tmp_path: Path, models: Path, predictor: Object) -> None:
    (pod,) = check(write(tmp_path / "m", inference_service(predictor)), models)
    assert pod.containers[0].findings == ()
    assert pod.annotations == ("spec", "predictor", "annotations")
    assert "sha256:" + "a" * 64 in json.loads(pod.stamp or "{}")["sources"][0]


def test_an_llm_service_takes_its_parallelism_from_the_object(tmp_path: Path, models: Path) -> None:
    two = container("--max-model-len=4096", name="main")
    two["resources"]["limits"]["nvidia.com/gpu"] = "2"
    prefill = {"template": pod_spec(container("--max-model-len=4096", name="main"))}
    model = {"uri": "hf://org/large"}
    document = llm_inference_service(model=model, parallelism={"tensor": 2}, template=pod_spec(two), prefill=prefill)
    found = check(write(tmp_path / "m", document), models)
    assert [pod.annotations for pod in found] == [("spec", "annotations"), ("spec", "prefill", "annotations")]
    assert found[0].containers[0].report is not None
    assert "--tensor-parallel-size=2" in found[0].containers[0].report.flags


def test_stamps_are_written_beside_what_people_wrote(tmp_path: Path, models: Path) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    text = f"""\
# our router
apiVersion: apps/v1
kind: Deployment
metadata:
  name: raw-vllm
spec:
  template:
    metadata:
      annotations:
        note: "kept"  # as it is
    spec:
      nodeSelector: {{cloud.google.com/gke-accelerator: nvidia-l4}}
      containers:
      - name: vllm
        image: {IMAGE}
        args:
        - --model=org/small
        - '--max-model-len=4096'
        resources:
          limits: {{nvidia.com/gpu: 1, memory: 12Gi}}
---
apiVersion: v1
kind: Service
metadata:
  name: raw-vllm
"""
    (folder / "router.yaml").write_text(text)
    (folder / "other.yaml").write_text("kind:   ConfigMap\nmetadata:   {name: a}\n")
    files = read_manifests(folder)
    found = check_manifests(files, ModelLookup(models, Places()), Defaults())
    write_stamps(files, found, folder)
    written = (folder / "router.yaml").read_text()
    added = [line for line in written.splitlines() if line not in text.splitlines()]
    assert [line for line in text.splitlines() if line not in written.splitlines()] == []
    assert len(added) == 1
    assert added[0].strip().startswith(f"{ANNOTATION}: ")
    assert (folder / "other.yaml").read_text() == "kind:   ConfigMap\nmetadata:   {name: a}\n"
    said = json.loads(
        next(YAML(typ="safe").load_all(written))["spec"]["template"]["metadata"]["annotations"][ANNOTATION]
    )
    assert said["args"] == {"vllm": ["--model=org/small", "--max-model-len=4096"]}
    assert (said["gpu"], said["verdict"], said["selector"]) == ("nvidia-l4", "fits", L4)


def test_a_stamp_follows_the_manifest_and_goes_with_a_finding(tmp_path: Path, models: Path) -> None:
    folder = write(tmp_path / "m", deployment(pod_spec()))

    def stamped() -> str | None:
        files = read_manifests(folder)
        write_stamps(files, check_manifests(files, ModelLookup(models, Places()), Defaults()), folder)
        template = YAML(typ="safe").load((folder / "all.yaml").read_text())["spec"]["template"]
        found: str | None = template["metadata"].get("annotations", {}).get(ANNOTATION)
        return found

    first = stamped()
    assert first is not None
    assert stamped() == first
    write(folder, deployment(pod_spec(container("--model=org/small", "--max-model-len=2048"))))
    assert stamped() not in (None, first)
    text = (folder / "all.yaml").read_text().replace("12Gi", "20Gi")
    (folder / "all.yaml").write_text(text)
    assert ANNOTATION in text
    assert stamped() is None


def test_copies_hold_every_file(tmp_path: Path, models: Path) -> None:
    folder = write(tmp_path / "m" / "sub", deployment(pod_spec())).parent
    write(folder, {"kind": "ConfigMap", "metadata": {"name": "c"}}, name="c.yml")
    before = {path: path.read_text() for path in folder.rglob("*.y*ml")}
    files = read_manifests(folder)
    write_stamps(files, check_manifests(files, ModelLookup(models, Places()), Defaults()), tmp_path / "out")
    assert {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.y*ml")} == {
        "sub/all.yaml", "c.yml",
    }  # fmt: skip
    assert ANNOTATION in (tmp_path / "out" / "sub" / "all.yaml").read_text()
    assert {path: path.read_text() for path in folder.rglob("*.y*ml")} == before


@pytest.mark.parametrize(
    "text",
    [
        "a: [",
        "{{ .Values.x }}",
        "- 1\n",
        "a: 1\n",
        "kind: Deployment\nspec: 3\n",
        "kind: Deployment\nkind: Pod\n",
        "\0",
    ],
)
def test_what_is_no_manifest_is_refused(tmp_path: Path, models: Path, text: str) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "x.yaml").write_text(text)
    with pytest.raises(ManifestInvalid, match=r"x\.yaml"):
        check(tmp_path / "m", models)


def test_a_folder_without_manifests(tmp_path: Path, models: Path) -> None:
    with pytest.raises(ManifestInvalid, match="rendered manifests"):
        check(models / "nowhere", models)
    with pytest.raises(ManifestInvalid, match=r"no \.yaml"):
        check(write(tmp_path / "m", name="x.txt"), models)


def test_wrong_quantities_name_the_object(tmp_path: Path, models: Path) -> None:
    with pytest.raises(ManifestInvalid, match="Deployment raw-vllm: '12 gigs' is no Kubernetes quantity"):
        check(write(tmp_path / "m", deployment(pod_spec(container(memory="12 gigs")))), models)


def test_pure_reading_of_a_pod() -> None:
    init = container(name="sidecar", restartPolicy="Always")
    volumes = [{"name": "m", "image": {"reference": "r"}}, {"name": "n", "emptyDir": {}}]
    (pod,) = pods(deployment(pod_spec(container(env=[{"name": "STORAGE_URI", "value": "s"}]), initContainers=[init],
                                      volumes=volumes)))  # fmt: skip
    assert [one.name for one in gpu_containers(pod)] == ["vllm", "sidecar"]
    assert sources(pod) == ("s", "r")
    assert node_labels(pod) == {"cloud.google.com/gke-accelerator": ("nvidia-l4",)}
    assert gpu_containers(pod)[0].startup_seconds == 600


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.data())
def test_a_manifest_with_anything_in_one_place_is_read_or_refused(data: st.DataObject) -> None:
    document = copy.deepcopy(deployment(pod_spec()))
    place = document
    for _ in range(data.draw(st.integers(0, 7))):
        inner = [key for key, value in place.items() if isinstance(value, dict)]
        if not inner:
            break
        place = place[data.draw(st.sampled_from(sorted(inner)))]
    key = data.draw(st.sampled_from(sorted(place)))
    place[key] = data.draw(JSON)
    try:
        found = [one for pod in pods(document) for one in gpu_containers(pod)]
    except (ManifestInvalid, QuantityInvalid) as error:
        assert str(error)
    else:
        assert all(one.gpus >= 0 for one in found)
