"""LiteLLM's proxy_config, from Helm values with overlays or a config.yaml: timeouts and retries of each alias.

Order of LiteLLM 1.106 (litellm/router.py, _get_stream_timeout and _get_non_stream_timeout): the deployment's own value, then
litellm_settings.request_timeout, then router_settings, then the default. A stream takes stream_timeout first, in the same order, and falls
back to the timeout of whole answers. Each of them is a limit on the time between two bytes, so on the whole of an answer that is not streamed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from serving.coherence.defaults import implicit
from serving.coherence.duration import seconds
from serving.coherence.model import Drain, Hop, Limits, Patch, Setting
from serving.coherence.objects import Inventory, items, mapping
from serving.coherence.read_pods import line

ROUTER = "litellm-values"
JITTER_SECONDS = (
    0.75  # litellm/constants.py JITTER; the wait after the last try is in Router.async_function_with_retries
)


@dataclass(frozen=True)
class Deployment:
    """One entry of model_list."""

    alias: str
    api_base: str
    served: str  # what it asks the upstream for
    hop: Hop


@dataclass(frozen=True)
class LiteLlm:
    """The merged values of one proxy."""

    file: str
    deployments: tuple[Deployment, ...]


def litellm(found: Inventory) -> LiteLlm | None:
    """All values that were read are layers of one proxy, in the order of the paths."""
    if not found.litellm:
        return None
    values = found.values()
    holder: dict[str, str] = {}
    for file, layer in found.litellm:
        holder |= dict.fromkeys(mapping(layer.get("proxy_config"), file), file)
    file = holder.get("model_list", found.litellm[0][0])
    config = mapping(values.get("proxy_config"), file)
    reader = _Reader(file, holder, values, config)
    entries = items(config.get("model_list"), f"{file}: model_list")
    made = (reader.deployment(index, each) for index, each in enumerate(entries))
    return LiteLlm(file, tuple(each for each in made if each))


@dataclass(frozen=True)
class _Reader:
    file: str
    holder: dict[str, str]
    values: dict[str, Any]
    config: dict[str, Any]

    def deployment(self, index: int, entry: dict[str, Any]) -> Deployment | None:
        params = mapping(entry.get("litellm_params"), f"{self.file}: model_list[{index}]")
        alias = str(entry.get("model_name", ""))
        if not alias:
            return None
        model = str(params.get("model", ""))
        provider, _, served = model.partition("/")
        known = provider in ("openai", "hosted_vllm", "text-completion-openai", "custom_openai", "vllm")
        return Deployment(alias, str(params.get("api_base", "")), served if known else model, self._hop(index, params))

    def _hop(self, index: int, params: dict[str, Any]) -> Hop:
        whole = self._first(index, params, ("timeout", "request_timeout"), "timeout") or implicit(
            "litellm-timeout", Patch(ROUTER, ("proxy_config", "router_settings", "timeout"), "number"), self.file
        )
        stream = self._first(index, params, ("stream_timeout",), "stream_timeout") or whole
        retries = self._retries(index, params)
        default = implicit("litellm-backoff")
        return Hop(
            "LiteLLM", "router",
            streaming=Limits(first=stream, idle=stream), whole=Limits(idle=whole),
            retries=retries, backoff=(default.value or 0.0, 8.0), backoff_where=default, jitter=JITTER_SECONDS, waits_after_last=True,
            queue=self._queue(index, params), drain=self._drain(), cancels_whole=self._cancels(),
        )  # fmt: skip

    def _first(self, index: int, params: dict[str, Any], own: tuple[str, ...], shared: str) -> Setting | None:
        for key in own:
            if params.get(key):
                return self._at(params[key], ("model_list", index, "litellm_params", key))
        settings, router = self._block("litellm_settings"), self._block("router_settings")
        if settings.get("request_timeout"):
            return self._at(settings["request_timeout"], ("litellm_settings", "request_timeout"))
        return self._at(router[shared], ("router_settings", shared)) if router.get(shared) else None

    def _retries(self, index: int, params: dict[str, Any]) -> Setting:
        router, settings = self._block("router_settings"), self._block("litellm_settings")
        if params.get("num_retries") is not None:
            return self._at(params["num_retries"], ("model_list", index, "litellm_params", "num_retries"), "integer")
        if router.get("num_retries") is not None:
            return self._at(router["num_retries"], ("router_settings", "num_retries"), "integer")
        if settings.get("num_retries") is not None:
            return self._at(settings["num_retries"], ("litellm_settings", "num_retries"), "integer")
        return implicit(
            "litellm-retries", Patch(ROUTER, ("proxy_config", "router_settings", "num_retries"), "integer"), self.file
        )

    def _cancels(self) -> Setting:
        """A stream's end is always passed on; a whole answer's only where it is asked for."""
        path = ("general_settings", "cancel_on_disconnect")
        value = self._block(path[0]).get(path[1])
        patch = Patch(ROUTER, ("proxy_config", *path), "true")
        if value is None:
            return implicit("litellm-cancel", patch, self.file)
        where, at = f"proxy_config.{'.'.join(path)}", line(self.config, path)
        file = self.holder.get(path[0], self.file)
        return Setting(float(bool(value)), where, False, file, at, patch)

    def _queue(self, index: int, params: dict[str, Any]) -> Setting:
        value = params.get("max_parallel_requests")
        return (
            Setting(None, "unset", True)
            if value is None
            else self._at(value, ("model_list", index, "litellm_params", "max_parallel_requests"))
        )

    def _drain(self) -> Drain | None:
        """The chart's pod; none for a plain config.yaml."""
        if set(self.values) <= {"proxy_config"} and not self.file.endswith(("values.yaml", "values.yml")):
            return None
        patch = Patch(ROUTER, ("terminationGracePeriodSeconds",), "integer")
        value = self.values.get("terminationGracePeriodSeconds")
        where = f"{self.file} terminationGracePeriodSeconds"
        grace = (
            implicit("litellm-grace", patch, self.file)
            if value is None
            else Setting(seconds(value, "number", where), where, False, self.file, 1, patch)
        )
        hook = mapping(mapping(self.values.get("lifecycle"), self.file).get("preStop"), self.file)
        sleep = mapping(hook.get("sleep"), self.file).get("seconds", 0)
        slept = seconds(sleep, "number", f"{self.file} lifecycle.preStop") if hook else None
        stop = Setting(
            slept,
            f"{self.file} lifecycle.preStop",
            not hook,
            self.file,
            1,
            Patch(ROUTER, ("lifecycle", "preStop"), "pre-stop"),
        )
        return Drain(grace, stop, False, Setting(None, "uvicorn waits for requests in flight"))

    def _block(self, name: str) -> dict[str, Any]:
        return mapping(self.config.get(name), f"{self.file}: {name}")

    def _at(self, value: Any, path: tuple[str | int, ...], style: str = "number") -> Setting:
        where = f"proxy_config.{'.'.join(map(str, path))}"
        file = self.holder.get(str(path[0]), self.file)
        at = line(self.config, path)
        return Setting(
            seconds(value, "number", f"{file}:{at}: {where}"),
            where,
            False,
            file,
            at,
            Patch(ROUTER, ("proxy_config", *path), style),
        )
