"""Evidence that may be looked at after every request: bets on which version answered, given what was measured. Pure.

The gateway draws each request's version at random, the candidate with the step's weight w. Where the versions do not differ
in a metric, its value says nothing of the version, so a bet on the version that is placed after the value is seen is a fair
game. Wealth starts at 1. With g the guessed likelihood ratio of the value (candidate over stable), a request multiplies it by

    g / (w g + 1 - w)  if the candidate answered,   1 / (w g + 1 - w)  if stable did.

Its expectation is 1, whatever g is, as long as g rests on earlier requests and on this value. So the chance that wealth ever
reaches 1 / alpha, at whatever request one looks or stops, is at most alpha (Ville 1939). g rises with the value, so the same
holds where the candidate is better than stable; a tolerated ratio is taken off the candidate's values before.
Sources:
- G. Shafer, "Testing by betting", Journal of the Royal Statistical Society A 184 (2021) 407-431: a bet is a likelihood ratio,
  and the wealth is the evidence.
- S. Shaer, G. Maman, Y. Romano, "Model-X sequential testing for conditional independence via testing by betting", AISTATS
  2023: betting on a label whose distribution is known.
- I. Waudby-Smith, A. Ramdas, "Estimating means of bounded random variables by betting", JRSS B 86 (2024) 1-27: several bets
  side by side, and the confidence sequence, which is every ratio that has not been refused.
"""

from __future__ import annotations

from math import log

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]

SHIFTS = (0.75, 1.5, 3.0)  # guesses of how far the candidate lies above stable, in standard deviations
RATES = (0.02, 0.1, 0.4, 0.9)  # guesses of the share of requests that a fault hits
PRIOR_DEVIATION = 0.3  # of the logarithm of a time, worth PRIOR_REQUESTS requests
PRIOR_REQUESTS = 4.0
LEAST_DEVIATION = 0.05
LEAST_STABLE = 3  # requests of stable before the first bet
CLIP = 3.0  # standard deviations; one outlier decides nothing
KEPT = 0.1  # of the wealth is never at stake
EVENT_PRIOR = (0.05, 5.0)  # events in so many requests of stable, before there are any


def bets_on_times(logs: Array, canary: Flags, weight: ArrayLike) -> Array:
    """Log wealth after each request, (…, requests), against "the candidate's are no larger".

    `logs` are logarithms; NaN: not measured, nothing is bet; infinite: failed, worse than any. Centre and spread are guessed
    from the stable's earlier requests.
    """
    known = np.isfinite(logs) & ~canary
    values = np.where(known, logs, 0.0)
    count = _before(known.astype(float))
    mean = _before(values) / np.maximum(count, 1)
    squares = np.maximum(_before(values**2) - count * mean**2, 0)
    variance = (PRIOR_REQUESTS * PRIOR_DEVIATION**2 + squares) / (PRIOR_REQUESTS + count)
    deviation = np.sqrt(np.maximum(variance, LEAST_DEVIATION**2) * (1 + 1 / np.maximum(count, 1)))
    score = np.clip((logs - mean) / deviation, -CLIP, CLIP)
    idle = np.isnan(logs) | (count < LEAST_STABLE)
    return _settle([shift * score - shift**2 / 2 for shift in SHIFTS], canary, weight, idle)


def bets_on_events(events: Array, canary: Flags, weight: ArrayLike) -> Array:
    """The same for 0 or 1 a request (NaN: not known), against "the candidate has no more"."""
    known = ~np.isnan(events)
    count, seen = _before((known & ~canary).astype(float)), _before(np.where(known & ~canary, events, 0.0))
    rate = (seen + EVENT_PRIOR[0]) / (count + EVENT_PRIOR[1])
    guesses = []
    for extra in RATES:
        worse = 1 - (1 - rate) * (1 - extra)
        guesses.append(np.where(events > 0, np.log(worse / rate), np.log((1 - worse) / (1 - rate))))
    return _settle(guesses, canary, weight, ~known)


def bets_on_limit(events: Array, canary: Flags, limit: float) -> Array:
    """Log wealth against "the candidate's share of events is at most `limit`". With limit 0 one event is proof: infinite."""
    counts = ~np.isnan(events) & canary
    wealths = []
    with np.errstate(divide="ignore"):
        for extra in RATES:
            worse = 1 - (1 - limit) * (1 - extra)
            hit, missed = np.log(worse) - np.log(limit), log(1 - extra)
            wealths.append(np.cumsum(np.where(counts, np.where(events > 0, hit, missed), 0.0), axis=-1))
    return _together(wealths)


def _settle(guesses: list[Array], canary: Flags, weight: ArrayLike, idle: Flags) -> Array:
    """`guesses` are logarithms of g, one for each bet that runs beside the others with the same starting wealth."""
    share = np.asarray(weight, dtype=float)
    wealths = []
    for guess in guesses:
        factor = np.exp(np.where(canary, guess, 0.0)) / (share * np.exp(guess) + 1 - share)
        gains = np.log(KEPT + (1 - KEPT) * np.where(idle, 1.0, factor))
        wealths.append(np.cumsum(gains, axis=-1))
    return _together(wealths)


def _together(wealths: list[Array]) -> Array:
    found: Array = np.logaddexp.reduce(wealths, axis=0) - log(len(wealths))
    return found


def _before(amounts: Array) -> Array:
    """Sum of the requests in front of each."""
    found: Array = np.cumsum(amounts, axis=-1) - amounts
    return found
