"""How many replicas does a service need for the requests that are in flight?

``ceil(in flight / target)`` of them, where growth follows the mean of a short window (one spike is
not a trend) and shrinking waits until the largest need of a longer window is below what runs, so
that load which comes and goes is not followed down and up again. A service may rest at zero: only
after it was idle for a given time, and one request in flight wakes it.

Source: Kubernetes' horizontal autoscaler (ceil of the ratio, tolerance, downscale stabilisation)
and Knative's (concurrency as the measure, scale to zero after a grace period).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from gridlease_scheduler.domain.job import Reason


@dataclass(frozen=True, slots=True)
class Scaling:
    """What a service's owner wants.

    ``least``..``most`` replicas; ``target``: requests in flight that one replica carries;
    ``growth_ms``: the window whose mean decides about growth, and the longest time between two
    observations that counts as watched; ``hold_ms``: for how long a need must have stayed below
    before replicas are taken away; ``idle_after_ms``: how long without any request before the last
    one goes (where ``least`` is 0); ``tolerance_percent``: overload that is borne without growth.
    """

    least: int
    most: int
    target: int
    growth_ms: int = 15_000
    hold_ms: int = 300_000
    idle_after_ms: int = 600_000
    tolerance_percent: int = 10

    def __post_init__(self) -> None:
        assert 0 <= self.least <= self.most, self
        assert self.most >= 1, self
        assert self.target >= 1, self
        assert 0 < self.growth_ms <= self.hold_ms, self
        assert self.idle_after_ms > 0, self
        assert self.tolerance_percent >= 0, self

    @property
    def window_ms(self) -> int:
        """How far back observations matter: the longest wait, and the one before it."""
        return max(self.hold_ms, self.idle_after_ms) + self.growth_ms


@dataclass(frozen=True, slots=True)
class Load:
    """Requests in flight at one time, over all replicas and in the queue before them."""

    at_ms: int
    in_flight: int


@dataclass(frozen=True, slots=True)
class Wanted:
    """The number of replicas from now on, and why."""

    replicas: int
    reason: Reason


def wanted(loads: Sequence[Load], replicas: int, now_ms: int, scaling: Scaling) -> Wanted:
    """What a service with ``replicas`` now should have.

    ``loads`` need not be sorted; those after ``now_ms`` or older than the window are ignored.
    Without a recent one nothing changes, but for the bounds.
    """
    seen = [x for x in loads if now_ms - scaling.window_ms <= x.at_ms <= now_ms]
    recent = [x.in_flight for x in seen if x.at_ms > now_ms - scaling.growth_ms]
    if not recent:
        return _bounded(replicas, replicas, scaling, "NO_OBSERVATION", {})
    carried = max(1, replicas) * scaling.target * len(recent)
    grown = _ceil(sum(recent), len(recent) * scaling.target)
    evidence = {
        "in_flight": f"{sum(recent) / len(recent):.2f}",
        "target": str(scaling.target),
    }
    if replicas == 0:
        code = "WOKEN" if grown else "ASLEEP"
        return _bounded(grown, replicas, scaling, code, evidence)
    if grown > replicas and sum(recent) * 100 > carried * (100 + scaling.tolerance_percent):
        return _bounded(grown, replicas, scaling, "LOAD_ABOVE_TARGET", evidence)
    floor = _floor(seen, replicas, now_ms, scaling)
    if floor < replicas:
        code = "LOAD_BELOW_TARGET" if floor else "IDLE"
        return _bounded(floor, replicas, scaling, code, evidence)
    return _bounded(replicas, replicas, scaling, "STEADY", evidence)


def _floor(seen: Sequence[Load], replicas: int, now_ms: int, scaling: Scaling) -> int:
    """The least number that would have carried all of the hold time; 0 after the idle time."""
    idle = _within(seen, now_ms - scaling.idle_after_ms, scaling)
    if idle and not any(idle):
        return 0
    held = _within(seen, now_ms - scaling.hold_ms, scaling)
    return min(replicas, max(1, _ceil(max(held), scaling.target))) if held else replicas


def _within(seen: Sequence[Load], since_ms: int, scaling: Scaling) -> list[int]:
    """Requests in flight since then; empty where it was not watched all the time."""
    times = sorted(load.at_ms for load in seen)
    begun = [at for at in times if at <= since_ms]
    watched = [*begun[-1:], *(at for at in times if at > since_ms)]
    if not begun or any(b - a > scaling.growth_ms for a, b in pairwise(watched)):
        return []
    return [load.in_flight for load in seen if load.at_ms >= since_ms]


def _ceil(value: int, by: int) -> int:
    return -(-value // by)


_WORDS = {
    "NO_OBSERVATION": "No load was observed lately, so nothing changes.",
    "ASLEEP": "There is no request, so it rests.",
    "WOKEN": "A request waits, so it is woken.",
    "LOAD_ABOVE_TARGET": "More requests are in flight than its replicas are meant to carry.",
    "LOAD_BELOW_TARGET": "For the whole hold time fewer replicas would have been enough.",
    "IDLE": "It had no request for the whole idle time.",
    "STEADY": "Its replicas carry the load.",
    "AT_MOST": "It needs more replicas than it may have.",
    "AT_LEAST": "It has the least number of replicas that its owner wants.",
}
_HINTS = {"AT_MOST": "Raise the largest number of replicas."}


def _bounded(
    count: int, replicas: int, scaling: Scaling, code: str, evidence: dict[str, str]
) -> Wanted:
    """Within the owner's bounds; where a bound decides, it is the reason."""
    bounded = min(scaling.most, max(scaling.least, count))
    if bounded != count and code != "NO_OBSERVATION":
        code = "AT_MOST" if bounded < count else "AT_LEAST"
        evidence = {**evidence, "needed": str(count)}
    evidence = {**evidence, "from": str(replicas), "to": str(bounded)}
    return Wanted(bounded, Reason(code, _WORDS[code], _HINTS.get(code, ""), evidence))
