"""Virtual time, a bus that loses, doubles, delays and reorders, and one list of what happened.

One seed is one run: every choice is drawn from ``rng``, every event waits in one heap. Times are
true milliseconds; each party reads its own clock, which drifts.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from gridlease_billing.domain.grant import Terms as BillingTerms
from gridlease_scheduler.domain.lease import Terms as SchedulerTerms

GRANT_MS = 20_000
NOTICE_MS = 5_000
DRIFT_PPM = 20_000  # far more than real clocks, so that it matters within a short run
KILL_MS = 400
STEP_MS = 600
SLOW_TICK_MS = 4_000
RETRY_MS = 1_000
REPORT_MS = 3_000
RPC_MS = 3_000

BILLING = BillingTerms(
    grant_ms=GRANT_MS,
    hold_ttl_ms=10_000,
    late_after_ms=3_600_000,
    margin_ms=KILL_MS + STEP_MS + 2 * GRANT_MS * DRIFT_PPM // 1_000_000,
)
SCHEDULER = SchedulerTerms(
    grant_ms=GRANT_MS,
    drift_ppm=DRIFT_PPM,
    kill_ms=KILL_MS,
    step_ms=STEP_MS,
    disconnected_ms=3 * SLOW_TICK_MS,
)
# Section 8, P8: within 2 G + margin + two slow ticks after the faults stop.
HEAL_MS = 2 * GRANT_MS + BILLING.margin_ms + 2 * SLOW_TICK_MS


class Violation(AssertionError):  # noqa: N818 - an invariant is violated, no error occurs
    """An invariant is broken. ``args[0]``: its name."""


@dataclass(frozen=True, slots=True)
class Profile:
    """How often what goes wrong, in the time before the healing."""

    faults_ms: int = 90_000
    loss: float = 0.05
    copies: float = 0.05
    late: float = 0.08
    mishaps: tuple[str, ...] = ()  # names of world events, each drawn from this bag
    mishap_every_ms: int = 8_000
    run_ms: tuple[int, int] = (5_000, 60_000)
    prepare_ms: tuple[int, int] = (0, 3_000)
    poor: float = 0.35
    drift: bool = True


@dataclass
class World:
    """The heap of events, the bus, and the faults of the network."""

    seed: int
    profile: Profile
    now: int = 0
    healed: bool = False
    trace: list[str] | None = None
    cut: set[frozenset[str]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self._heap: list[tuple[int, int, bool, Callable[..., None], tuple[object, ...]]] = []
        self._sequence = 0

    def at(self, delay_ms: int, act: Callable[..., None], *args: object) -> None:
        """Calls ``act`` later."""
        self._push(self.now + delay_ms, False, act, args)

    def _push(self, when: int, message: bool, act: Callable[..., None], args: tuple) -> None:
        self._sequence += 1
        heapq.heappush(self._heap, (when, self._sequence, message, act, args))

    def send(
        self, kind: str, source: str, target: str, act: Callable[..., None], *args: object
    ) -> None:
        """Gives a message to the bus: it may come never, late, or more than once."""
        for delay in self._delays(source, target):
            self._push(self.now + delay, True, self._deliver, (kind, source, target, act, args))

    def _deliver(
        self, kind: str, source: str, target: str, act: Callable[..., None], args: tuple
    ) -> None:
        if self.cut and frozenset((source, target)) in self.cut:
            return
        if self.trace is not None:
            self.say(f"{source}>{target} {kind}")
        act(*args)

    def _delays(self, source: str, target: str) -> list[int]:
        rng, profile = self.rng, self.profile
        if self.healed:
            return [rng.randrange(2, 30)]
        if self.cut and frozenset((source, target)) in self.cut:
            return []
        draw = rng.random()
        if draw < profile.loss:
            return []
        delays = [self._delay()]
        if draw > 1 - profile.copies:
            delays.append(self._delay())
        return delays

    def _delay(self) -> int:
        draw = self.rng.random()
        if draw < self.profile.late:
            return self.rng.randrange(500, 2 * GRANT_MS)
        return self.rng.randrange(2, 40) if draw < 0.9 else self.rng.randrange(40, 1_500)

    def heal(self) -> None:
        """Faults stop; what is still under way arrives soon."""
        self.healed = True
        self.cut.clear()
        soon = self.now + 500
        self._heap = [
            (min(when, soon) if message else when, seq, message, act, args)
            for when, seq, message, act, args in self._heap
        ]
        heapq.heapify(self._heap)

    def run_until(self, end_ms: int) -> None:
        """Takes events in order of time until ``end_ms``."""
        heap = self._heap
        while heap and heap[0][0] <= end_ms:
            self.now, _, _, act, args = heapq.heappop(heap)
            act(*args)
            heap = self._heap
        self.now = end_ms

    def say(self, line: str) -> None:
        if self.trace is not None:
            self.trace.append(f"{self.now:>7} {line}")

    def drift(self) -> int:
        """A party's clock rate, ppm off the truth: any two differ by at most ``DRIFT_PPM``."""
        if not self.profile.drift:
            return 0
        return self.rng.choice((-1, 1)) * self.rng.choice((0, DRIFT_PPM // 4, DRIFT_PPM // 2))
