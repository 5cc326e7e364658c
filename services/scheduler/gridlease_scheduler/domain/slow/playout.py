"""What does an order of jobs cost? It is played forward to the end, with no further arrivals.

At every step of the play the jobs, in their order, each take the free kind on which they would end
soonest; who has ended gives its devices back. With that greedy choice an order alone reaches the
good exchanges (a short job with little gain from the fastest kind leaves it to a long one), and
needs no linear programme.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

NOWHERE = -1
_TINY_S = 1e-6


@dataclass(frozen=True, slots=True)
class Runner:
    """One job as the play sees it; kinds are numbers.

    Attributes:
        scale: Devices that it takes, all of one kind.
        options: (kind, seconds to its end there), soonest first; not empty.
        kind: Where it runs now, or ``NOWHERE``.
        age_s: How long it has been here.
        late_s: Ends at a higher age than this weigh more.
        unfair_s: And more still at a higher age than this.
    """

    scale: int
    options: tuple[tuple[int, float], ...]
    kind: int
    age_s: float
    late_s: float
    unfair_s: float


@dataclass(frozen=True, slots=True)
class Rates:
    """What switching costs, how the play cuts time, and how late ends weigh.

    Attributes:
        step_s: Devices change hands at multiples of this.
        growth: Far ahead, steps are this share of the time played so far: less work.
        switch_s: Lost by a job that starts, moves or comes back.
        shy_s: A move must gain this much more than it loses.
        late: Weight of each second beyond ``late_s``.
        unfair: Weight of each second beyond ``unfair_s``.
    """

    step_s: float = 360.0
    growth: float = 0.02
    switch_s: float = 30.0
    shy_s: float = 1_800.0
    late: float = 0.2
    unfair: float = 5.0


@dataclass(frozen=True, slots=True)
class Release:
    """Devices that come free while the play goes on: (kind, how many) at a time."""

    at_s: float
    counts: tuple[tuple[int, int], ...]


def assign(
    order: Sequence[int], runners: Sequence[Runner], free: Sequence[int], rates: Rates
) -> dict[int, int]:
    """Who runs where if the jobs choose in this order: runner → kind."""
    left = list(free)
    chosen: dict[int, int] = {}
    for j in order:
        runner = runners[j]
        best, at = inf, NOWHERE
        for kind, seconds in runner.options:
            if left[kind] < runner.scale:
                continue
            if kind != runner.kind:
                seconds += rates.switch_s  # noqa: PLW2901
                if runner.kind != NOWHERE:
                    seconds += rates.shy_s  # noqa: PLW2901
            if seconds < best:
                best, at = seconds, kind
        if at != NOWHERE:
            left[at] -= runner.scale
            chosen[j] = at
    return chosen


class Play:
    """Plays orders of the same jobs on the same devices, and counts its work.

    ``visits`` counts jobs looked at over all steps: the measure by which callers bound a search
    without a clock. A step ends a job or uses up a release, so one play of n jobs and r releases
    makes at most n × (n + r) visits.
    """

    __slots__ = ("_fast", "_free", "_needs", "_rates", "_releases", "_runners", "visits")

    def __init__(
        self,
        runners: Sequence[Runner],
        free: Sequence[int],
        rates: Rates,
        releases: Sequence[Release] = (),
    ) -> None:
        self._runners = runners
        self._free = tuple(free)
        self._rates = rates
        self._releases = releases
        self._needs = [(runner.scale, runner.options) for runner in runners]
        self._fast = [runner.options[0][1] for runner in runners]
        self.visits = 0

    def cost(self, order: Sequence[int], limit: float = inf) -> float:
        """The sum of the times to each end, in seconds, late ones weighing more.

        Infinite as soon as it cannot stay below ``limit``, and where a job can never start.
        """
        rates = self._rates
        place = [runner.kind for runner in self._runners]
        rest = [1.0] * len(self._runners)
        base = list(self._free)
        coming = list(reversed(self._releases))
        alive: Sequence[int] = order
        now = cost = 0.0
        while alive:
            while coming and coming[-1].at_s <= now:
                for kind, count in coming.pop().counts:
                    base[kind] += count
            running, ideal = self._choose(alive, place, rest, base[:])
            self.visits += len(alive)
            if cost + ideal + now * len(alive) >= limit or not (running or coming):
                return inf
            span = inf
            if running:
                step = max(rates.step_s, now * rates.growth)
                soonest = min(rest[j] * full + lost for j, full, lost in running)
                span = max(soonest, -(-soonest // step) * step)
            if coming:
                span = min(span, coming[-1].at_s - now)
            cost += self._advance(running, rest, now, span)
            alive = [j for j in alive if rest[j] > 0.0]
            now += span
        return cost

    def _choose(
        self, alive: Sequence[int], place: list[int], rest: Sequence[float], left: list[int]
    ) -> tuple[list[tuple[int, float, float]], float]:
        """Each takes what suits it of what is left; a search spends most of its time here.

        Returns:
            (job, seconds that all of it takes there, seconds lost) a job that runs; and the sum
            of all times to the end if nobody had to wait.
        """
        switch_s, move_s = self._rates.switch_s, self._rates.switch_s + self._rates.shy_s
        needs, fast = self._needs, self._fast
        spare, ideal = sum(left), 0.0
        running: list[tuple[int, float, float]] = []
        for j in alive:
            was, part = place[j], rest[j]
            ideal += part * fast[j]
            at = NOWHERE
            if spare > 0:
                width, options = needs[j]
                best, full = inf, 0.0
                for kind, seconds in options:
                    if left[kind] >= width:
                        ends = part * seconds
                        if kind != was:
                            ends += switch_s if was < 0 else move_s
                        if ends < best:
                            best, full, at = ends, seconds, kind
                if at >= 0:
                    left[at] -= width
                    spare -= width
                    running.append((j, full, 0.0 if at == was else switch_s))
            place[j] = at
        return running, ideal

    def _advance(
        self,
        running: Sequence[tuple[int, float, float]],
        rest: list[float],
        now: float,
        span: float,
    ) -> float:
        """Let ``span`` seconds pass; the cost of the jobs that end in them."""
        cost = 0.0
        for j, full, lost in running:
            ends = rest[j] * full + lost
            if ends <= span + _TINY_S:
                runner = self._runners[j]
                age_s = runner.age_s + now + ends
                cost += now + ends
                if age_s > runner.late_s:
                    cost += self._rates.late * (age_s - runner.late_s)
                if age_s > runner.unfair_s:
                    cost += self._rates.unfair * (age_s - runner.unfair_s)
                rest[j] = -1.0
            elif span > lost:
                rest[j] -= (span - lost) / full
        return cost
