"""Time as a value that is passed in, so that the simulator can hold it still.

Three clocks with three uses. Wall time is information for people; a span is measured on
``boottime_ns`` (counts suspend) and checked against ``raw_ns`` (never slewed): a deadline is over
when either says so.
"""

from __future__ import annotations

import datetime
import time
from typing import Protocol

SECOND_NS = 1_000_000_000


class Clock(Protocol):
    """What a shell may ask of time."""

    def wall(self) -> datetime.datetime:
        """The time of day, UTC, for people and for the price book."""
        ...

    def boottime_ns(self) -> int:
        """Nanoseconds since boot, suspend included (CLOCK_BOOTTIME)."""
        ...

    def raw_ns(self) -> int:
        """Nanoseconds of an unslewed oscillator (CLOCK_MONOTONIC_RAW)."""
        ...


class SystemClock:
    """The host's clocks."""

    def wall(self) -> datetime.datetime:
        return datetime.datetime.fromtimestamp(time.time(), tz=datetime.UTC)

    def boottime_ns(self) -> int:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    def raw_ns(self) -> int:
        return time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)


class ManualClock:
    """A clock that moves only when told to; for tests and the simulator."""

    def __init__(self, start: datetime.datetime | None = None) -> None:
        self._wall = start or datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
        self._ns = SECOND_NS

    def advance(self, seconds: float) -> None:
        """Move all three clocks on by ``seconds`` (>= 0)."""
        assert seconds >= 0, seconds
        self._ns += round(seconds * SECOND_NS)
        self._wall += datetime.timedelta(seconds=seconds)

    def wall(self) -> datetime.datetime:
        return self._wall

    def boottime_ns(self) -> int:
        return self._ns

    def raw_ns(self) -> int:
        return self._ns
