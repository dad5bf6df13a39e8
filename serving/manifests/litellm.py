"""The model's entry in LiteLLM's model_list, as an overlay of Helm values. Pure.

Helm merges maps and replaces lists, so the overlay carries the whole list: the entries that are there, and this one in its place.
"""

from __future__ import annotations

from typing import Any

from serving.manifests.model import Alias, Desired

# LiteLLM waits longer than the route, and only it may ask again: it does not, since the gateway's answer is final.
MARGIN_SECONDS = 15


def overlay(desired: Desired, alias: Alias) -> dict[str, Any]:
    """Values for the proxy's chart, to be read last."""
    entry = _entry(desired, alias)
    others = [each for each in alias.others if each.get("model_name") != alias.name]
    place = next((at for at, each in enumerate(alias.others) if each.get("model_name") == alias.name), len(others))
    return {"proxy_config": {"model_list": [*others[:place], entry, *others[place:]]}}


def _entry(desired: Desired, alias: Alias) -> dict[str, Any]:
    platform, seconds = desired.platform, desired.request_seconds + MARGIN_SECONDS
    versions = {
        "weights": {f"v{member.version}": desired.share_of(member) for member in desired.members},
        "modelcars": {f"v{member.version}": member.modelcar for member in desired.members},
    }
    return {
        "model_name": alias.name,
        "litellm_params": {
            "model": f"openai/{desired.model}",
            "api_base": f"http://{platform.gateway}.{platform.gateway_namespace}.svc.cluster.local/v1",
            "api_key": "os.environ/UPSTREAM_API_KEY",
            "input_cost_per_token": alias.input_cost_per_token,
            "output_cost_per_token": alias.output_cost_per_token,
            "timeout": seconds,
            "stream_timeout": seconds,
            "num_retries": 0,
        },
        "model_info": {**alias.info, **versions},
    }
