"""What is wrong with a chain: the rules by id, and findings. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from serving.coherence.model import Patch, Setting


@dataclass(frozen=True)
class Rule:
    """`why` is what happens under load; the same for every finding of the rule."""

    title: str
    why: str


@dataclass(frozen=True)
class Finding:
    """`change` is what to do, exactly; `patch` is where --fix writes, if a manifest can hold it."""

    rule: str
    alias: str
    client: str
    hop: str
    message: str
    change: str
    at: Setting
    need: float = 0.0  # seconds that it should be above; of several findings about one place the largest is told
    patch: Patch | None = None

    @property
    def implicit(self) -> bool:
        return self.at.implicit


RULES: Mapping[str, Rule] = {
    "client-router": Rule(
        "The client outlives the router's tries",
        "A client that leaves first asks again while the router goes on: two requests where there was one.",
    ),
    "client-route": Rule(
        "The client outlives every route",
        "The client sees its own timeout, never the gateway's answer; what is behind the route still works for it.",
    ),
    "router-route": Rule(
        "The router outlives the route behind it",
        "The router gives up while the route waits, and its retry meets the first try still at the engine.",
    ),
    "route-router": Rule(
        "A route outlives what tries behind it",
        "The edge cuts the answer while the router still tries: retries for a caller that got a 504.",
    ),
    "answer-cut": Rule(
        "The longest answer comes through",
        "An answer of the permitted length is cut, after the engine has done most of the work.",
    ),
    "no-inner-bound": Rule(
        "Something between client and engine has a limit that someone chose",
        "A silent engine holds connections and slots until a default of some library ends them.",
    ),
    "implicit-route-timeout": Rule(
        "No route's limit is a default that nobody wrote",
        "Envoy's 15 s or KServe's 60 s cut long answers, and no file of yours says so.",
    ),
    "stream-first-chunk": Rule(
        "A stream's first chunk may take the worst queue and prefill",
        "Under load the limit fires while the request waits its turn; the retry joins the end of the queue.",
    ),
    "idle-first-token": Rule(
        "Idle limits exceed the time to the first token",
        "No byte flows before the first token; an idle limit ends a healthy request in the queue.",
    ),
    "idle-whole-answer": Rule(
        "Idle limits exceed an answer that is not streamed",
        "Without streaming no byte flows until the end: the idle limit is a limit on the whole answer.",
    ),
    "retries-two-layers": Rule(
        "One layer retries",
        "Tries multiply: an overloaded engine gets the product of all layers for each request.",
    ),
    "retry-many": Rule("At most three tries", "Each further try is load on an engine that is already failing."),
    "retry-after-first-byte": Rule(
        "No retry after the first byte", "The client gets the beginning of one answer and the end of another."
    ),
    "retry-hedged": Rule("No second try while the first runs", "The engine generates both; under load both are slower."),
    "retry-no-backoff": Rule("Retries wait", "Without a wait every client's retry comes at the worst moment, together."),
    "retry-unfinished": Rule(
        "The total has room for every try", "The last try is cut by the total: work at the engine that cannot succeed."
    ),
    "backend-over-request": Rule(
        "backendRequest is at most request", "The Gateway API refuses the route, and the old one stays in force."
    ),
    "connect-over-attempt": Rule(
        "Connecting takes less than a try", "A dead endpoint uses up the whole try; there is no time for another one."
    ),
    "drain-short": Rule(
        "A pod drains as long as its longest request",
        "Each rollout, scale-in or node drain kills requests in flight.",
    ),
    "no-pre-stop": Rule(
        "A preStop hook outlasts the endpoint's removal",
        "SIGTERM and the removal race: requests still arrive at a pod that no longer listens.",
    ),
    "pre-stop-over-grace": Rule(
        "preStop is shorter than the grace period", "The hook uses up the grace period and the process gets SIGKILL."
    ),
    "startup-short": Rule("The startup budget covers a cold start", "The kubelet ends every start before it is done."),
    "liveness-short": Rule("Liveness does not count from a cold start", "Without a startup probe the pod never starts."),
    "progress-short": Rule(
        "progressDeadlineSeconds exceeds a cold start", "A rollout that works is reported as failed, and may be undone."
    ),
    "queue-outlasts": Rule(
        "Queues reject before timeouts fire",
        "What waits at the end of the queue is given up before its turn, and computed all the same.",
    ),
    "wake-over-hold": Rule(
        "Requests are held as long as a wake takes", "The first request after a pause always fails, and so do its retries."
    ),
    "wake-over-limit": Rule(
        "Limits leave room for a wake", "The wake ends after the caller has gone: a GPU started for nobody."
    ),
    "zero-unheld": Rule("Something holds requests at zero replicas", "The gateway answers 503 until someone scales up."),
    "two-scalers": Rule("One owner of replicas", "Two scalers set the same field against each other."),
    "cooldown-short": Rule("The cooldown exceeds a wake", "The pod is removed while it loads, again and again."),
    "cancel-lost": Rule(
        "Cancellation reaches the engine", "The client has gone and nothing tells the engine; it generates for nobody."
    ),
    "keep-alive-race": Rule(
        "A gateway drops idle connections before the engine does",
        "A request meets the engine closing its connection: a 502 that no load explains.",
    ),
    "alias-two-paths": Rule(
        "One alias, one set of limits", "The same request is cut or not, by which deployment it happens to meet."
    ),
    "suppression-expired": Rule("Suppressions are in date", "What was accepted for a while is still there."),
}  # fmt: skip
