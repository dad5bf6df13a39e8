"""Seeded incoherences, each found by the rule for it; and coherent chains of other shapes, without a finding."""

# ruff: noqa: E501 - a seed is one line
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from serving.coherence.findings import RULES
from tests.fix_coherence import Handle, changed, checked, coherent, rules_of

HELD = {"timeouts": {"conditionWait": "90s", "responseHeader": "200s"}, "scaledownPeriod": 600}
Change = Callable[[Handle], object]
SEEDS: list[tuple[str, str, Change]] = [
    ("client below the router's tries", "client-router", lambda h: h.client.update(total="700s", idle="700s")),
    ("client equal to the edge route", "client-route", lambda h: h.client.update(total="350s", idle="350s")),
    ("client below the route", "client-route", lambda h: h.client.update(total="120s", idle="120s")),
    ("client's idle limit", "client-router", lambda h: h.client.update(idle="700s")),
    ("a third try", "client-router", lambda h: h.router.update(num_retries=2)),
    ("a default of two retries", "client-router", lambda h: h.router.pop("num_retries")),
    ("router below the route", "router-route", lambda h: h.router.update(timeout=300)),
    ("router equal to the route", "router-route", lambda h: h.router.update(timeout=350)),
    ("route above the router", "router-route", lambda h: h.timeouts.update(request="7m")),
    ("a deployment's own timeout", "router-route", lambda h: h.params.update(timeout=200)),
    ("request_timeout over router_settings", "router-route", lambda h: h.config.update(litellm_settings={"request_timeout": 100})),
    ("edge below the router's tries", "route-router", lambda h: h.outer.update(request="500s")),
    ("edge equal to them", "route-router", lambda h: h.outer.update(request="703s")),
    ("no limit written anywhere", "no-inner-bound", lambda h: (h.router.clear(), h.rule.pop("timeouts"), h.edge["spec"]["rules"][0].pop("timeouts"))),
    ("router's default of 6,000 s", "client-router", lambda h: (h.router.pop("timeout"), h.rule.pop("timeouts"))),
    ("route shorter than the answer", "answer-cut", lambda h: h.timeouts.update(request="80s")),
    ("longer answers", "answer-cut", lambda h: h.figures.update(tokens_per_second=5)),
    ("client shorter than the answer", "answer-cut", lambda h: h.client.update(total="60s")),
    ("backendRequest shorter than the answer", "answer-cut", lambda h: (envoy_gateway(h), h.timeouts.update(backendRequest="30s"))),
    ("agentgateway's backendRequest, until the headers", "idle-whole-answer", lambda h: h.timeouts.update(backendRequest="30s")),
    ("and below the queue", "stream-first-chunk", lambda h: h.timeouts.update(backendRequest="20s")),
    ("agentgateway waits for no retry", "retry-no-backoff", lambda h: (h.router.update(num_retries=0), h.rule.update(retry={"attempts": 2, "codes": [503]}))),
    ("stream_timeout below the queue", "stream-first-chunk", lambda h: h.router.update(stream_timeout=15)),
    ("a longer queue", "stream-first-chunk", lambda h: h.figures.update(queue="130s")),
    ("idle below the first token", "idle-first-token", lambda h: h.client.update(idle="10s")),
    ("idle below the whole answer", "idle-whole-answer", lambda h: h.client.update(idle="60s")),
    ("router's timeout below the whole answer", "idle-whole-answer", lambda h: h.router.update(timeout=50)),
    ("retries of the client too", "retries-two-layers", lambda h: h.client.update(retries=1)),
    ("retries of the route too", "retries-two-layers", lambda h: h.rule.update(retry={"codes": [503], "attempts": 2, "backoff": "1s"})),
    ("OpenAI's SDK, which tries three times", "retries-two-layers", lambda h: h.chain.pop("clients")),
    ("six tries", "retry-many", lambda h: h.router.update(num_retries=5)),
    ("tries without a wait", "retry-no-backoff", lambda h: (h.router.update(num_retries=0), h.client.update(retries=1, backoff="0s"))),
    ("a retry in mid-stream", "retry-after-first-byte", lambda h: h.give(retries=1, backoff="1s", retries_after_first_byte=True)),
    ("hedging", "retry-hedged", lambda h: h.give(hedges=True)),
    ("tries that do not fit", "retry-unfinished", lambda h: (envoy_gateway(h), h.router.update(num_retries=0), h.rule.update(retry={"attempts": 3, "backoff": "1s"}, timeouts={"request": "350s", "backendRequest": "120s"}))),
    ("backendRequest above request", "backend-over-request", lambda h: h.timeouts.update(backendRequest="400s")),
    ("connecting for ever", "connect-over-attempt", lambda h: h.client.update(connect="900s")),
    ("grace of 30 s", "drain-short", lambda h: h.pod.pop("terminationGracePeriodSeconds")),
    ("grace below the answer", "drain-short", lambda h: h.pod.update(terminationGracePeriodSeconds=60)),
    ("vLLM aborts after a sleep", "drain-short", lambda h: h.vllm.update(lifecycle={"preStop": {"sleep": {"seconds": 10}}})),
    ("LiteLLM's grace of 90 s", "drain-short", lambda h: h.values.pop("terminationGracePeriodSeconds")),
    ("no preStop at the engine", "no-pre-stop", lambda h: (h.vllm.pop("lifecycle"), h.vllm["args"].append("--shutdown-timeout=400"))),
    ("no preStop at the router", "no-pre-stop", lambda h: h.values.pop("lifecycle")),
    ("preStop longer than the grace", "pre-stop-over-grace", lambda h: h.values.update(lifecycle={"preStop": {"sleep": {"seconds": 900}}})),
    ("startup budget below a cold start", "startup-short", lambda h: h.vllm.update(startupProbe={"periodSeconds": 10, "failureThreshold": 30})),
    ("liveness from the start", "liveness-short", lambda h: h.vllm.pop("startupProbe")),
    ("the rollout's deadline", "progress-short", lambda h: h.engine["spec"].update(progressDeadlineSeconds=200)),
    ("a queue that outlasts the limits", "queue-outlasts", lambda h: h.params.update(max_parallel_requests=200)),
    ("vLLM's own queue that outlasts them", "queue-outlasts", lambda h: h.vllm["args"].append("--max-num-queued-reqs=200")),
    ("a hold below the wake", "wake-over-hold", lambda h: h.wake({**HELD, "timeouts": {"conditionWait": "20s"}})),
    ("a request total below the wake", "wake-over-hold", lambda h: h.wake({"timeouts": {"request": "50s"}, "scaledownPeriod": 600})),
    ("a client below the wake", "wake-over-limit", lambda h: (h.wake(HELD), h.figures.update(wake="500s"))),
    ("zero replicas, nothing holds", "zero-unheld", lambda h: h.wake(None)),
    ("two scalers", "two-scalers", lambda h: (h.wake(HELD), h.wake(None))),
    ("a cooldown below the wake", "cooldown-short", lambda h: h.wake({**HELD, "scaledownPeriod": 30})),
    ("LiteLLM that keeps on for whole answers", "cancel-lost", lambda h: h.config.pop("general_settings")),
    ("and is told to", "cancel-lost", lambda h: h.config.update(general_settings={"cancel_on_disconnect": False})),
    ("a proxy that keeps on", "cancel-lost", lambda h: h.give(cancels=False)),
    ("connections kept too long", "keep-alive-race", lambda h: h.service.update(kind="Ignored") or envoy(h, pool_idle="60s")),
    ("Envoy's 15 s", "implicit-route-timeout", lambda h: envoy(h, pool_idle="4s", timeout=None)),
    ("an alias over two paths", "alias-two-paths", lambda h: h.config["model_list"].append({"model_name": "chat", "litellm_params": {**h.params, "timeout": 390}})),
]  # fmt: skip


def envoy_gateway(handle: Handle) -> None:
    """The inner Gateway is one of Envoy Gateway's."""
    handle.manifests[5]["spec"]["gatewayClassName"] = "envoy-gateway"


def envoy(handle: Handle, pool_idle: str, timeout: str | None = "300s") -> None:
    """A gateway of its own beside the rest."""
    kind = "type.googleapis.com/envoy.config"
    action = {"cluster": "engine", **({"timeout": timeout} if timeout else {})}
    table = {
        "@type": f"{kind}.route.v3.RouteConfiguration",
        "virtual_hosts": [{"routes": [{"match": {"prefix": "/"}, "route": action}]}],
    }
    options = {"http": {"common_http_protocol_options": {"idle_timeout": pool_idle}}}
    cluster = {"@type": f"{kind}.cluster.v3.Cluster", "name": "engine", "typed_extension_protocol_options": options}
    handle.files["envoy.yaml"] = [{"resources": [table, cluster]}]


@pytest.mark.parametrize(("rule", "change"), [pytest.param(rule, change, id=name) for name, rule, change in SEEDS])
def test_a_seeded_incoherence_is_found(rule: str, change: Change, tmp_path: Path) -> None:
    found = checked(tmp_path, changed(change))
    assert rule in rules_of(found), [each.finding.message for each in found.findings]
    for each in found.findings:
        assert each.finding.change and each.finding.at.where and RULES[each.finding.rule].why


def test_there_is_a_seed_for_every_rule() -> None:
    assert {rule for _, rule, _ in SEEDS} == set(RULES) - {"suppression-expired"}
    assert len(SEEDS) >= 40


COHERENT: dict[str, Change] = {
    "the chain as it stands": lambda h: None,
    "no retries anywhere": lambda h: h.router.update(num_retries=0),
    "the client tries, the router does not": lambda h: (h.router.update(num_retries=0), h.client.update(retries=2)),
    "Kubernetes' own units": lambda h: (h.timeouts.update(request="5m50s", backendRequest="349s999ms"), h.outer.update(request="14m10s")),
    "limits of one deployment": lambda h: (h.router.clear(), h.params.update(timeout=400, stream_timeout=60, num_retries=1)),
    "litellm_settings": lambda h: (h.router.clear(), h.config.update(litellm_settings={"request_timeout": 400, "num_retries": 1})),
    "vLLM drains by itself": lambda h: h.vllm.update(args=[*h.vllm["args"], "--shutdown-timeout", "350"], lifecycle={"preStop": {"sleep": {"seconds": 10}}}),
    "a Service instead of a pool": lambda h: h.rule.update(backendRefs=[{"name": "llm", "port": 8000}]),
    "straight to the engine": lambda h: h.params.update(api_base="http://llm.serving.svc.cluster.local:8000/v1"),
    "zero replicas, held": lambda h: h.wake(HELD),
    "zero replicas, held without a limit of its own": lambda h: h.wake({"scaledownPeriod": 600}),
    "agentgateway's retries of connections that failed": lambda h: h.rule.update(retry={"attempts": 2}),
    "a stream whose backendRequest ends at its headers": lambda h: (h.timeouts.update(backendRequest="60s"), h.client.update(modes="stream")),
    "clients that stream, of whom LiteLLM tells": lambda h: (h.config.pop("general_settings"), h.client.update(modes="stream")),
    "a queue that rejects": lambda h: h.params.update(max_parallel_requests=16),
    "a wide queue in front of an engine that rejects": lambda h: (h.params.update(max_parallel_requests=200), h.vllm["args"].append("--max-num-queued-reqs=16")),
    "a policy in place of the route's timeouts": lambda h: (h.rule.pop("timeouts"), h.add("AgentgatewayPolicy", "limit", targetRefs=[{"kind": "HTTPRoute", "name": "inner"}], traffic={"timeouts": {"request": "350s"}})),
}  # fmt: skip


@pytest.mark.parametrize("name", COHERENT)
def test_a_coherent_chain_gives_no_alarm(name: str, tmp_path: Path) -> None:
    found = checked(tmp_path, changed(COHERENT[name]))
    assert [f"{each.finding.rule}: {each.finding.message}" for each in found.findings] == []
    assert {chain.engine.name for chain in found.chains} == {"serving/llm"}, "the chain was not followed to the engine"


def test_the_answer_names_the_first_thing_to_cut(tmp_path: Path) -> None:
    """350 s less 20 s of queue and 2 s of prefill at 10 tokens/s are 3,280 tokens."""
    from serving.coherence.answer import answer

    files = coherent()
    files["chain.yaml"][0]["engines"]["*"].update(tokens_per_second=10, max_tokens=6000)
    one = answer(checked(tmp_path, files).chains[0])
    assert one.tokens == 3280
    assert one.sentence().startswith(
        "the longest answer that can come through is 3,280 tokens at 10 tokens/s; the first thing to cut it is HTTPRoute serving/inner rule 0 at 350 s"
    )
