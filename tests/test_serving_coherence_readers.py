"""Each reader by itself: what a manifest says becomes a hop's or an engine's limits, and without it the program's own default."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from serving.coherence.model import Chain
from tests.fix_coherence import Files, Handle, changed, checked, rules_of


def chains(folder: Path, files: Files) -> tuple[Chain, ...]:
    return checked(folder, files).chains


def hop(chain: Chain, start: str) -> Any:
    return next(each for each in chain.hops if each.name.startswith(start))


def of_client(found: tuple[Chain, ...], client: str) -> Chain:
    return next(each for each in found if each.client == client)


def deployed(image: str, env: list[dict[str, str]] | None = None) -> Any:
    """A change that adds a client's Deployment."""
    container = {"name": "main-app", "image": image, "env": env or []}
    return lambda handle: handle.add("Deployment", "client", "apps", template={"spec": {"containers": [container]}})


def llm_service(handle: Handle, **pod: Any) -> None:
    """An LLMInferenceService in the place of the Deployment: the pod is spec.template itself."""
    spec = {**handle.pod, **pod}
    handle.manifests[0] = {
        "apiVersion": "serving.kserve.io/v1alpha2",
        "kind": "LLMInferenceService",
        "metadata": {"name": "llm", "namespace": "serving", "labels": {"app": "llm"}},
        "spec": {"model": {"uri": "oci://r/m@sha256:" + "0" * 64}, "replicas": 1, "template": spec},
    }


def test_an_llminferenceservice_is_an_engine_with_its_pods_limits(tmp_path: Path) -> None:
    (chain,) = chains(tmp_path / "same", changed(llm_service))
    assert (chain.engine.context, chain.engine.max_num_seqs.value) == (8192, 16)
    assert chain.engine.drain is not None and chain.engine.drain.grace.value == 410
    assert checked(tmp_path / "same2", changed(llm_service)).findings == ()
    short = changed(lambda handle: llm_service(handle, terminationGracePeriodSeconds=60))
    assert "drain-short" in rules_of(checked(tmp_path / "short", short))


def test_a_client_traffic_policy_bounds_every_route_of_its_gateway(tmp_path: Path) -> None:
    def limited(handle: Handle, seconds: str) -> None:
        handle.manifests[5]["spec"]["gatewayClassName"] = "envoy-gateway"
        handle.add(
            "ClientTrafficPolicy",
            "edge",
            "gateways",
            targetRefs=[{"kind": "Gateway", "name": "inner"}],
            timeout={"http": {"streamIdleTimeout": "7m"}},
            connection={"connectionLimit": {"value": 100, "maxStreamDuration": seconds}},
        )

    (chain,) = chains(tmp_path / "long", changed(lambda handle: limited(handle, "20m")))
    inner = hop(chain, "HTTPRoute serving/inner")
    assert (inner.whole.total.value, inner.whole.idle.value) == (350, 420)  # the shorter of 350 s and 20 min
    cut = checked(tmp_path / "short", changed(lambda handle: limited(handle, "40s")))
    assert hop(cut.chains[0], "HTTPRoute serving/inner").whole.total.value == 40
    assert "answer-cut" in rules_of(cut)


INTERCEPTED = {
    "rules": [{"hosts": ["inner.gateways.svc.cluster.local"]}],
    "target": {"service": "llm", "port": 8000},
    "scalingMetric": {"concurrency": {"targetValue": 10}},
}


@pytest.mark.parametrize(
    ("timeouts", "expected"),
    [
        ({"readiness": "2m", "request": "350s", "responseHeader": "340s"}, (120, 350, 340)),
        ({}, (None, None, 300)),
    ],
    ids=["given", "defaults"],
)
def test_an_interceptor_route_is_a_hop_in_front_of_its_service(
    tmp_path: Path, timeouts: dict[str, str], expected: tuple[float | None, ...]
) -> None:
    def intercepted(handle: Handle) -> None:
        handle.add("InterceptorRoute", "llm", **INTERCEPTED, timeouts=timeouts)
        handle.rule["backendRefs"] = [{"name": "keda-add-ons-http-interceptor-proxy", "namespace": "keda"}]

    (chain,) = chains(tmp_path / "route", changed(intercepted))
    found = hop(chain, "interceptor of InterceptorRoute serving/llm")
    assert (found.readiness.value, found.whole.total.value, found.whole.first.value) == expected
    assert found.readiness.implicit is (not timeouts)
    assert chain.engine.name.endswith("serving/llm")


@pytest.mark.parametrize(
    ("pattern", "taken"),
    [("*.example.com", True), ("llm.example.com", True), ("*.example.org", False), ("example.com", False)],
)
def test_of_two_interceptors_the_one_that_takes_the_host_is_the_hop(tmp_path: Path, pattern: str, taken: bool) -> None:
    def two(handle: Handle) -> None:
        handle.add("InterceptorRoute", "other", **{**INTERCEPTED, "rules": [{"hosts": ["other.test"]}]})
        handle.add("InterceptorRoute", "llm", **{**INTERCEPTED, "rules": [{"hosts": [pattern]}]})
        handle.rule["backendRefs"] = [{"name": "keda-add-ons-http-interceptor-proxy", "namespace": "keda"}]
        handle.rule["filters"] = [{"type": "URLRewrite", "urlRewrite": {"hostname": "llm.example.com"}}]

    (chain,) = chains(tmp_path / "files", changed(two))
    found = [each.name for each in chain.hops if each.kind == "interceptor"]
    assert found == (["interceptor of InterceptorRoute serving/llm"] if taken else [])
    assert any("takes host 'llm.example.com'" in note for note in chain.notes) is not taken


def test_tabby_asks_the_models_of_its_configuration_and_waits_for_ever(tmp_path: Path) -> None:
    def tabby(handle: Handle) -> None:
        deployed("registry/tabbyml/tabby:0.31")(handle)
        toml = '[model.chat.http]\nkind = "openai/chat"\nmodel_name = "chat"\n'
        handle.manifests.append(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "c", "namespace": "apps"},
                "data": {"config.toml": toml},
            }
        )

    found = chains(tmp_path / "tabby", changed(tabby))
    assert {(each.alias, each.client) for each in found} == {("chat", "app"), ("chat", "Tabby")}
    total = of_client(found, "Tabby").hops[0].whole.total
    assert (total.value, total.implicit) == (None, True)
    renamed = changed(tabby)
    renamed["manifests.yaml"][-1]["data"]["config.toml"] = 'model_name = "another"'
    assert {each.client for each in chains(tmp_path / "other", renamed)} == {"app"}


def test_a_prefect_worker_calls_with_the_sdks_limits_from_inside(tmp_path: Path) -> None:
    found = of_client(chains(tmp_path / "p", changed(deployed("prefecthq/prefect:3-python3.12"))), "Prefect worker")
    client = found.hops[0]
    assert (client.whole.idle.value, client.retries.value, client.connect.value) == (600, 2, 5)
    assert not any(each.name.startswith("HTTPRoute litellm/edge") for each in found.hops)


WEBUI, N8N = "ghcr.io/open-webui/open-webui:0.9.6", "docker.n8n.io/n8nio/n8n:2.27.4"


@pytest.mark.parametrize(
    ("image", "client", "env", "expected"),
    [
        (WEBUI, "Open WebUI", [{"name": "AIOHTTP_CLIENT_TIMEOUT", "value": "450"}], (450, False)),
        (WEBUI, "Open WebUI", [{"name": "AIOHTTP_CLIENT_TIMEOUT", "value": ""}], (None, True)),
        (WEBUI, "Open WebUI", [], (None, True)),
        (N8N, "n8n", [{"name": "N8N_WEBHOOK_TIMEOUT", "value": "450000"}], (300, True)),  # nothing reads it
    ],
)
def test_a_deployed_clients_total(
    tmp_path: Path, image: str, client: str, env: list[dict[str, str]], expected: tuple[float | None, bool]
) -> None:
    total = of_client(chains(tmp_path / "given", changed(deployed(image, env))), client).hops[0].whole.total
    assert (total.value, total.implicit) == expected


@pytest.mark.parametrize(
    ("image", "args", "pod", "expected"),
    [
        ("vllm/vllm-openai:v0.32.0", [], {}, 256),
        (
            "vllm/vllm-openai:v0.32.0",
            [],
            {"nodeSelector": {"cloud.google.com/gke-accelerator": "nvidia-a100-80gb"}},
            256,
        ),
        (
            "vllm/vllm-openai:v0.32.0",
            [],
            {"nodeSelector": {"cloud.google.com/gke-accelerator": "nvidia-h100-80gb"}},
            1024,
        ),
        ("vllm/vllm-openai:v0.32.0", [], {"nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-H200"}}, 1024),
        ("vllm/vllm-openai-cpu:v0.32.0-x86_64", [], {}, 128),
        ("vllm/vllm-openai-cpu:v0.32.0-x86_64", ["-tp=2", "--pipeline-parallel-size=3"], {}, 768),
    ],
)
def test_an_engine_without_max_num_seqs_takes_what_its_device_gets(
    tmp_path: Path, image: str, args: list[str], pod: dict[str, Any], expected: float
) -> None:
    def bare(handle: Handle) -> None:
        handle.vllm.update(image=image, args=["--model=org/model", "--served-model-name=llm", *args])
        handle.pod.update(pod)

    seqs = chains(tmp_path / "files", changed(bare))[0].engine.max_num_seqs
    assert (seqs.value, seqs.implicit) == (expected, True)


def test_agentgateway_tries_again_after_written_codes_only_and_waits_the_same_each_time(tmp_path: Path) -> None:
    """503 twice, 2 s apart; a backendRequest that ends at the headers; no code, no second request; a policy says the same."""
    tried = {"attempts": 2, "backoff": "2s"}
    policy = {"targetRefs": [{"kind": "HTTPRoute", "name": "inner"}], "backend": {"http": {"requestTimeout": "40s"}}}
    given = {
        "codes": changed(
            lambda h: (h.rule.update(retry={**tried, "codes": [503]}), h.timeouts.update(backendRequest="60s"))
        ),
        "none": changed(lambda h: h.rule.update(retry=tried)),
        "policy": changed(
            lambda h: h.add("AgentgatewayPolicy", "p", **policy, traffic={"retry": {**tried, "codes": [503]}})
        ),
    }
    found = {name: hop(chains(tmp_path / name, files)[0], "HTTPRoute serving/inner") for name, files in given.items()}
    assert [(each.retries.value, each.waits()) for each in found.values()] == [(2, 4), (0, 0), (2, 4)]
    assert [each.whole.first.value for each in found.values()] == [60, None, 40]
    assert all(each.connect.value == 11 and not each.retries_timeouts for each in found.values())


def test_a_timeout_of_its_own_is_tried_once_by_agentgateway(tmp_path: Path) -> None:
    from serving.coherence.worst import amplification, silent_seconds

    files = changed(
        lambda h: (h.rule.update(retry={"attempts": 2, "codes": [503]}), h.timeouts.update(backendRequest="60s"))
    )
    (chain,) = chains(tmp_path / "files", files)
    assert (silent_seconds(chain.hops[-1:], False), amplification(chain.hops[-1:])) == (60, 3)


def test_a_fallback_of_an_interceptor_answers_after_30_s(tmp_path: Path) -> None:
    def intercepted(handle: Handle, **more: Any) -> None:
        handle.add("InterceptorRoute", "llm", **INTERCEPTED, **more)
        handle.add("ScaledObject", "llm", scaleTargetRef={"name": "llm"}, minReplicaCount=0, cooldownPeriod=600)
        handle.rule["backendRefs"] = [{"name": "keda-add-ons-http-interceptor-proxy", "namespace": "keda"}]

    other = {"coldStart": {"fallback": {"service": {"name": "other", "port": 80}}}}
    found = checked(tmp_path / "fallback", changed(lambda h: intercepted(h, **other)))
    one = hop(found.chains[0], "interceptor")
    assert (one.readiness.value, one.readiness.implicit, one.falls_back) == (30, True, True)
    assert "wake-over-hold" not in rules_of(found)
    short = checked(tmp_path / "short", changed(lambda h: intercepted(h, timeouts={"readiness": "30s"})))
    assert "wake-over-hold" in rules_of(short)
