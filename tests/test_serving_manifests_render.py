"""Rendering without a cluster: the same bytes, one changed file a step, names that all lead somewhere, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, get_args

import pytest
import yaml

from serving.manifests.model import Adapter, DesiredInvalid, Form, Resources
from serving.manifests.naming import SIGNATURE
from serving.manifests.pod import grace_seconds
from serving.manifests.render import KUSTOMIZATION, notes, objects, render
from serving.manifests.workload import STOP
from tests.fix_rendered import LORA, adapter_member, desired, member, on_one_engine

FORMS = get_args(Form)


def found(files: dict[str, str], kind: str) -> list[dict[str, Any]]:
    texts = (text for path, text in files.items() if path not in (KUSTOMIZATION, "litellm-values.yaml"))
    return [each for text in texts for each in yaml.safe_load_all(text) if each["kind"] == kind]


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}


@pytest.mark.parametrize("form", FORMS)
def test_the_same_input_gives_the_same_bytes(form: Any) -> None:
    assert render(desired(form=form)) == render(desired(form=form))


def test_every_file_is_in_the_kustomization_and_says_its_objects() -> None:
    wanted = desired()
    files = render(wanted)
    assert yaml.safe_load(files[KUSTOMIZATION])["resources"] == [path for path in files if path != KUSTOMIZATION]
    for path, documents in objects(wanted).items():
        assert json.dumps(list(yaml.safe_load_all(files[path]))) == json.dumps(list(documents))


def test_a_step_of_a_pool_canary_changes_the_route_alone() -> None:
    assert changed(render(desired(weight=10)), render(desired(weight=50))) == {"route.yaml"}
    backends = found(render(desired(weight=50)), "HTTPRoute")[0]["spec"]["rules"][0]["backendRefs"]
    assert [(each["name"], each["weight"]) for each in backends] == [("ticket-router-v3", 50), ("ticket-router-v4", 50)]


def test_a_promoted_candidate_is_not_touched() -> None:
    """Nothing of its workload changes when it becomes stable, so nothing restarts."""
    before, after = render(desired(weight=100)), render(desired(stable=member("4"), candidate=None, weight=0))
    assert {path for path in changed(before, after) if path.startswith("ticket-router-v4/")} == set()
    assert not any(path.startswith("ticket-router-v3/") for path in after)


def test_a_step_on_one_engine_changes_the_rewrite_alone() -> None:
    assert changed(render(on_one_engine(weight=10)), render(on_one_engine(weight=50))) == {"rewrite.yaml"}
    targets = found(render(on_one_engine(weight=10)), "InferenceModelRewrite")[0]["spec"]["rules"][0]["targets"]
    assert targets == [
        {"modelRewrite": "ticket-router-v3", "weight": 90},
        {"modelRewrite": "ticket-router-v4", "weight": 10},
    ]


@pytest.mark.parametrize("weight", [0, 100])
def test_a_target_without_weight_is_left_out(weight: int) -> None:
    """The schema's least weight is 1."""
    targets = found(render(on_one_engine(weight=weight)), "InferenceModelRewrite")[0]["spec"]["rules"][0]["targets"]
    assert targets == [{"modelRewrite": "ticket-router-v4" if weight else "ticket-router-v3", "weight": 100}]


def test_promotion_and_undo_on_one_engine_restart_nothing() -> None:
    """The engine keeps the adapter that left the traffic until the next release."""
    canary = render(on_one_engine(weight=100))
    old, new = Adapter("ticket-router-v3", "adapters/ticket-router-v3"), adapter_member("4").adapter
    promoted = render(on_one_engine(stable=adapter_member("4"), candidate=None, weight=0, idle_adapters=(old,)))
    undone = render(on_one_engine(stable=adapter_member("3"), candidate=None, weight=0, idle_adapters=(new,)))
    assert changed(canary, promoted) == {"route.yaml"}
    assert changed(canary, undone) == {"route.yaml", "rewrite.yaml"}


@pytest.mark.parametrize("form", FORMS)
def test_every_name_has_a_route_and_an_engine_that_knows_it(form: Any) -> None:
    """What a rule takes is a name of the engine behind it, or is rewritten to one in its pool."""
    every = [desired(form=form)]
    if form != "llminferenceservice":
        every += [
            on_one_engine(form=form),
            desired(form=form, stable=adapter_member("3", "3"), candidate=adapter_member("4", "4")),
        ]
    for wanted in every:
        files = render(wanted)
        rewritten = {
            (rewrite["spec"]["poolRef"]["name"], rule["matches"][0]["model"]["value"]): [
                target["modelRewrite"] for target in rule["targets"]
            ]
            for rewrite in found(files, "InferenceModelRewrite")
            for rule in rewrite["spec"]["rules"]
        }
        for rule in found(files, "HTTPRoute")[0]["spec"]["rules"]:
            asked = rule["matches"][0]["headers"][0]["value"]
            for backend in rule["backendRefs"]:
                names = rewritten.get((backend["name"], asked), [asked])
                assert set(names) <= engine_names(files, backend["name"]), (asked, backend)


def engine_names(files: dict[str, str], name: str) -> set[str]:
    """Names that the pool's engine answers to, from its arguments alone."""
    args = container(files, name)["args"]
    served = {word.partition("=")[2] for word in args if word.startswith("--served-model-name=")}
    if "--lora-modules" in args:
        served |= {word.partition("=")[0] for word in args[args.index("--lora-modules") + 1 :]}
    return served


def container(files: dict[str, str], name: str) -> dict[str, Any]:
    kinds = ("InferenceService", "Deployment", "LLMInferenceService")
    for one in (each for kind in kinds for each in found(files, kind)):
        if one["metadata"]["name"] == name:
            spec = one["spec"].get("predictor") or one["spec"].get("template")
            return (spec.get("spec") or spec)["containers"][0]
    raise AssertionError(f"no workload {name}")


def test_a_swap_runs_one_engine_at_a_time() -> None:
    for weight, running in ((0, "ticket-router-v3"), (100, "ticket-router-v4")):
        deployments = found(render(desired(strategy="swap", form="deployment", weight=weight)), "Deployment")
        engines = {each["metadata"]["name"]: each["spec"]["replicas"] for each in deployments}
        kept = {"ticket-router-v3-epp": 1, "ticket-router-v4-epp": 1}
        assert engines == {"ticket-router-v3": 0, "ticket-router-v4": 0, **kept, running: 1}
        services = found(render(desired(strategy="swap", weight=weight)), "InferenceService")
        stopped = {
            each["metadata"]["name"]: STOP.items() <= each["metadata"]["annotations"].items() for each in services
        }
        assert stopped == {"ticket-router-v3": True, "ticket-router-v4": True, running: False}


def test_the_gap_is_told() -> None:
    assert "503" in notes(desired(strategy="swap", weight=0))[0]
    assert "restarts once" in notes(on_one_engine())[0]
    assert notes(on_one_engine(surge=True)) == notes(desired()) == ()


def test_the_grace_period_outlasts_the_route() -> None:
    assert grace_seconds(desired(request_seconds=300)) > 300


REFUSED = {
    "a tag": ({"stable": member("3", modelcar="registry.example.com/models/x:v3")}, "sha256"),
    "engine by tag": ({"platform": None}, "sha256"),
    "no member": ({"stable": None, "candidate": None, "weight": 0}, "a member"),
    "the same version": ({"candidate": member("3")}, "another"),
    "weight without a candidate": ({"candidate": None}, "0 without a candidate"),
    "weight above 100": ({"weight": 101}, "0 to 100"),
    "half a swap": ({"strategy": "swap"}, "0 or 100"),
    "one engine, full models": ({"strategy": "adapter"}, "an adapter in each member"),
    "adapters of KServe's newer kind": (
        {"form": "llminferenceservice", "stable": adapter_member("3", "3"), "candidate": None, "weight": 0},
        "takes no oci:// adapters",
    ),
    "shared memory above the limit": ({"stable": member("3", resources=Resources(shm="16Gi"))}, "below the memory limit"),
    "a long name": ({"model": "a" * 40, "namespace": "n" * 30}, "63"),
    "a name that DNS does not take": ({"model": "Router"}, "lower-case"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_rendered_is_refused_with_what_is_required(case: str) -> None:
    changes, required = REFUSED[case]
    if case == "engine by tag":
        changes = {"platform": replace(desired().platform, engine_image="vllm/vllm-openai:v0.23.0")}
    with pytest.raises(DesiredInvalid, match="required") as caught:
        desired(**changes)
    assert required in str(caught.value)


def test_a_deployment_mounts_the_modelcar_of_each_adapter() -> None:
    """The arguments and images are the same whichever has the traffic, so promotion and undo restart nothing."""
    old, new = adapter_member("3", "3"), adapter_member("4", "4")
    canary = render(on_one_engine(form="deployment", stable=old, candidate=new))
    idle = replace(new.adapter or Adapter("", ""), modelcar=new.modelcar, signature=new.signature)
    undone = render(on_one_engine(form="deployment", stable=old, candidate=None, weight=0, idle_adapters=(idle,)))
    assert changed(canary, undone) == {"route.yaml", "rewrite.yaml"}
    engine = container(canary, "ticket-router")
    assert engine["args"][0] == "--model=/mnt/modelcar/models"
    assert engine["args"][-2:] == [
        "ticket-router-v3=/mnt/modelcar-1/models/adapters/ticket-router-v3",
        "ticket-router-v4=/mnt/modelcar/models/adapters/ticket-router-v4",
    ]
    mounts = {each["name"]: each["mountPath"] for each in engine["volumeMounts"]}
    assert (mounts["modelcar"], mounts["modelcar-1"]) == ("/mnt/modelcar", "/mnt/modelcar-1")


def test_kserve_puts_the_first_modelcar_beside_the_engine_and_the_second_is_an_image_volume() -> None:
    old, new = adapter_member("3", "3"), adapter_member("4", "4")
    files = render(on_one_engine(stable=old, candidate=new))
    engine, predictor = container(files, "ticket-router"), found(files, "InferenceService")[0]["spec"]["predictor"]
    assert engine["args"][0] == "--model=/mnt/models"
    assert engine["args"][-2:] == [
        "ticket-router-v3=/mnt/modelcar-1/models/adapters/ticket-router-v3",
        "ticket-router-v4=/mnt/models/adapters/ticket-router-v4",
    ]
    assert {"name": "STORAGE_URI", "value": f"oci://{new.modelcar}"} in engine["env"]
    assert {each["name"]: each["image"]["reference"] for each in predictor["volumes"] if "image" in each} == {
        "modelcar-1": old.modelcar
    }
    assert "modelcar-1" in {each["name"] for each in engine["volumeMounts"]}


def test_a_pod_names_the_signature_of_each_modelcar_that_it_mounts() -> None:
    old, new = adapter_member("3", "3"), adapter_member("4", "4")
    for form in ("deployment", "inferenceservice"):
        both = objects(on_one_engine(form=form, stable=old, candidate=new))["ticket-router/workload.yaml"][0]["spec"]
        annotations = (both.get("predictor") or both["template"]["metadata"])["annotations"]
        lines = [f"{each.modelcar} {dict(each.evidence)['signature']}" for each in (new, old)]
        assert annotations[SIGNATURE] == "\n".join(lines)
    unsigned = replace(member(), evidence=())
    assert SIGNATURE not in render(desired(stable=unsigned, candidate=None, weight=0))["ticket-router-v3/workload.yaml"]


def test_an_adapter_has_a_name_of_its_own() -> None:
    with pytest.raises(DesiredInvalid, match="one of its own"):
        on_one_engine(
            candidate=member(
                "4", flags=LORA, adapter=Adapter("ticket-router", "adapters/x"), modelcar=adapter_member().modelcar
            )
        )
