"""Spans by whichever of the two clocks runs later: a wait is over only when both say so."""

from __future__ import annotations

from gridlease_kernel.clock import Clock


class LaterClock:
    """``ports.MonotonicClock``: milliseconds since it was made, by the slower clock."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._boot_ns = clock.boottime_ns()
        self._raw_ns = clock.raw_ns()

    def now_ms(self) -> int:
        boot_ns = self._clock.boottime_ns() - self._boot_ns
        raw_ns = self._clock.raw_ns() - self._raw_ns
        return min(boot_ns, raw_ns) // 1_000_000
