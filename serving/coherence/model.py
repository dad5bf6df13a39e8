"""A chain from a client to an engine as numbers: what each hop waits for, how often it tries, how long its pod drains. Pure.

All times are seconds; None is no limit. A value knows where it was written, or which row of defaults.yaml it comes from.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Setting:
    """One time limit or count. `patch` says how to write another value there; None where no manifest can."""

    value: float | None
    where: str
    implicit: bool = False
    file: str = ""
    line: int = 1
    patch: Patch | None = None

    @property
    def place(self) -> str:
        """Where another value is written; of one that nobody wrote, where it would stand."""
        if not self.implicit or self.patch is None:
            return self.where
        kind, _, name = self.patch.style.partition(":")
        path = f"env {name}" if kind == "env" else ".".join(map(str, self.patch.path))
        return path if self.patch.target == "litellm-values" else f"{path} of {self.patch.target}"

    def __str__(self) -> str:
        from serving.coherence.duration import shown

        return f"{shown(self.value)} ({'implicit: ' if self.implicit else ''}{self.where})"


@dataclass(frozen=True)
class Patch:
    """A place that --fix can write: a path in a Kubernetes object, or in Helm values; and the notation of the value."""

    target: str  # "Kind/namespace/name" or "litellm-values" or "chain"
    path: tuple[str | int, ...]
    style: str = "gateway"  # gateway, number, integer, true, env:NAME, threshold:PERIOD:DELAY, pre-stop


UNSET = Setting(None, "unset", implicit=True)
CANCELS = Setting(1, "as its streams")


@dataclass(frozen=True)
class Limits:
    """Of one way of asking: streaming, or the whole answer at once."""

    total: Setting = UNSET  # over all tries
    attempt: Setting = UNSET  # of one try, first to last byte
    first: Setting = UNSET  # of one try, until the first byte
    idle: Setting = UNSET  # of one try, between two bytes; before the first byte too

    def patience(self) -> Setting:
        """What ends one try on an upstream that says nothing."""
        return least(self.attempt, self.first, self.idle)

    def longest(self) -> Setting:
        """What ends an answer that never pauses. An idle limit does not."""
        return least(self.attempt, self.total)


def least(*settings: Setting) -> Setting:
    """The tightest; the first of several, and of none the first."""
    bounded = [each for each in settings if each.value is not None]
    return min(bounded, key=lambda each: each.value or 0.0) if bounded else settings[0]


@dataclass(frozen=True)
class Drain:
    """A pod that is told to stop."""

    grace: Setting
    pre_stop: Setting  # seconds of sleep, 0 for another hook; value None: no hook
    aborts: bool  # the process ends requests in flight on SIGTERM, `shutdown` seconds later at the latest
    shutdown: Setting
    waits_for_idle: bool = False  # its preStop hook returns when nothing runs any more

    def available(self) -> float:
        """Seconds that a request in flight has after the pod was told to stop."""
        grace = self.grace.value or 0.0
        if not self.aborts or self.waits_for_idle:
            return grace
        return min(grace, (self.pre_stop.value or 0.0) + (self.shutdown.value or 0.0))


@dataclass(frozen=True)
class Hop:
    """One program on the way that waits for the next one."""

    name: str
    kind: str  # client, route, router, interceptor
    streaming: Limits
    whole: Limits
    retries: Setting = field(default_factory=lambda: Setting(0, "no retries"))
    backoff: tuple[float, float] = (
        0.0,
        0.0,
    )  # first wait, longest; doubled each time, so constant where both are the same
    backoff_where: Setting = UNSET
    connect: Setting = UNSET
    cancels: bool = True  # it closes its request when the one above has gone
    cancels_whole: Setting = CANCELS  # the same where the answer is not streamed: 1 yes, 0 no
    retries_after_first_byte: bool = False
    retries_timeouts: bool = True  # a try that its own limit ended is made again
    hedges: bool = False  # a second try while the first one runs
    queue: Setting = UNSET  # requests that it lets through at a time
    drain: Drain | None = None
    readiness: Setting = UNSET  # interceptor: how long it holds a request for the first replica
    falls_back: bool = False  # another service answers where no replica came in that time
    pool_idle: Setting = UNSET  # how long it keeps an unused connection to the next hop
    jitter: float = 0.0  # seconds that each wait may be longer
    waits_after_last: bool = False  # it waits once more before it reports the last failure

    def limits(self, streaming: bool) -> Limits:
        return self.streaming if streaming else self.whole

    def tells(self, streaming: bool) -> bool:
        """Whether it closes its request when the one above has gone."""
        return self.cancels and (streaming or bool(self.cancels_whole.value))

    def waits(self) -> float:
        """All waits between tries, at their longest."""
        first, longest = self.backoff
        retries = int(self.retries.value or 0)
        waits = retries + 1 if retries and self.waits_after_last else retries
        return sum(min(longest, first * 2.0**each) + self.jitter for each in range(waits))


@dataclass(frozen=True)
class Engine:
    """What generates. Times are measured figures that someone gives; None: not known."""

    name: str
    queue_wait: float | None = None  # longest time in the queue that is accepted
    prefill: float | None = None
    inter_token: float | None = None  # seconds
    max_tokens: int | None = None  # longest answer that clients ask for
    context: int | None = None  # --max-model-len
    max_num_seqs: Setting = UNSET
    admits: Setting = UNSET  # requests of one replica, running and waiting; it refuses more
    replicas: int = 1
    drain: Drain | None = None
    startup: Setting = UNSET  # what the probes allow a start
    liveness_only: bool = False  # no startup probe: the liveness probe counts from the start
    progress: Setting = UNSET
    cold_start: float | None = None  # measured
    keep_alive: Setting = UNSET
    scaling: Scaling | None = None

    @property
    def first_token(self) -> float | None:
        """Worst time to the first token."""
        return None if self.prefill is None else float(self.queue_wait or 0.0) + self.prefill

    @property
    def tokens(self) -> int | None:
        known = [each for each in (self.max_tokens, self.context) if each]
        return min(known) if known else None

    @property
    def bound(self) -> float | None:
        """Longest answer that it may give: queue, prefill, and every token."""
        if self.first_token is None or self.inter_token is None or self.tokens is None:
            return None
        return self.first_token + self.tokens * self.inter_token


@dataclass(frozen=True)
class Scaling:
    """Who scales the engine's pods."""

    minimum: int
    cooldown: Setting
    scalers: tuple[str, ...]
    wake: float | None = None  # measured p99 from zero to the first answer
    held: bool = False  # an interceptor on the path holds requests meanwhile


@dataclass(frozen=True)
class Chain:
    """The hops of one alias for one client, in order, and the engine."""

    alias: str
    client: str
    hops: tuple[Hop, ...]
    engine: Engine
    notes: tuple[str, ...] = ()
    modes: tuple[bool, ...] = (True, False)  # streaming, whole
