"""The gateway that routes models, its class, and the policy that takes a model's name from the body. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from serving.cluster_doctor.expected import GATEWAY, GATEWAYS, MODEL_NAME_POLICY, MODELS, Expected
from serving.cluster_doctor.model import Cluster, Finding, Object, condition, is_true, said
from serving.cluster_doctor.namespaces import absent
from serving.cluster_doctor.paths import CLASSES, GATEWAY_PATH, NAME_POLICY_PATH

WHERE = f"{GATEWAYS}/{GATEWAY}"


def check_gateway(cluster: Cluster, _: Expected) -> Iterator[Finding]:
    found = cluster.get(GATEWAY_PATH)
    if found is None:
        yield absent("gateway", WHERE, "sync the platform's inference-gateway")
        return
    if not any(_takes_routes(one) for one in found["spec"]["listeners"]):
        yield Finding(
            "gateway-routes", WHERE, "no listener takes routes of another namespace", f"HTTPRoutes from {MODELS}",
            "set allowedRoutes.namespaces.from: All on its HTTP listener",
        )  # fmt: skip
    name = str(found["spec"]["gatewayClassName"])
    chosen = next((one for one in cluster.items(CLASSES) if one["metadata"]["name"] == name), None)
    if chosen is None:
        yield absent("gateway-class", name, "install agentgateway: its controller makes the class when it runs")
    elif not is_true(chosen, "Accepted"):
        yield Finding("gateway-class", name, said(chosen, "Accepted"), "Accepted", "see the log of its controller")
    elif not is_true(found, "Programmed"):
        yield Finding(
            "gateway", WHERE, said(found, "Programmed"), "Programmed", "see the log of the class's controller"
        )


def _takes_routes(listener: Object) -> bool:
    """A selector is taken at its word: what it matches is not computed here."""
    chosen = ((listener.get("allowedRoutes") or {}).get("namespaces") or {}).get("from", "Same")
    return listener.get("protocol") in ("HTTP", "HTTPS") and chosen != "Same"


def check_name_policy(cluster: Cluster, wanted: Expected) -> Iterator[Finding]:
    """agentgateway says Accepted of a policy whose target does not exist, and then never runs it."""
    if not wanted.google:
        return
    where, found = f"{GATEWAYS}/{MODEL_NAME_POLICY}", cluster.get(NAME_POLICY_PATH)
    if found is None:
        yield absent(
            "model-name-policy", where, "sync the platform's routing-core: without it no route matches a model"
        )
        return
    ancestors = found.get("status", {}).get("ancestors") or ()
    for kind in ("Accepted", "Attached"):
        if not any(condition({"status": one}, kind).get("status") == "True" for one in ancestors):
            yield Finding(
                "model-name-policy",
                where,
                f"not {kind}",
                kind,
                f"its targetRefs must name the Gateway {GATEWAY} in {GATEWAYS}",
            )
            return
