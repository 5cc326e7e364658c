"""Has the database's clock jumped? Two readings, each bracketed by this process's own clock.

A reading lies somewhere between asking and hearing, so it says where the difference of the two
clocks is only within a range; ranges of two readings that are apart by more than the limit mean
that one of the clocks was moved.

Source: docs/lease-protocol.md, section 5, "database clock suspect".
"""

from __future__ import annotations

from dataclasses import dataclass

JUMP_MS = 1_000
_MS_NS = 1_000_000


@dataclass(frozen=True, slots=True)
class Reading:
    """``database_ms`` was read between ``asked_ns`` and ``heard_ns`` of CLOCK_BOOTTIME."""

    database_ms: int
    asked_ns: int
    heard_ns: int

    @property
    def least_ms(self) -> int:
        """The least that the database's clock may be ahead of ours."""
        return self.database_ms - self.heard_ns // _MS_NS

    @property
    def most_ms(self) -> int:
        """The most that it may be."""
        return self.database_ms - self.asked_ns // _MS_NS


def jumped(before: Reading, after: Reading, limit_ms: int = JUMP_MS) -> bool:
    """Whether the clocks have moved apart by more than ``limit_ms`` between two readings."""
    return after.least_ms - before.most_ms > limit_ms or before.least_ms - after.most_ms > limit_ms


@dataclass(frozen=True, slots=True)
class Watch:
    """The last reading, and until when (CLOCK_BOOTTIME) grants of before a jump may still run."""

    last: Reading | None = None
    suspect_until_ns: int = 0

    def seen(self, reading: Reading, longest_ms: int) -> Watch:
        """The watch after one more reading; ``longest_ms``: the longest that a grant may run."""
        if self.last is not None and jumped(self.last, reading):
            return Watch(reading, reading.heard_ns + longest_ms * _MS_NS)
        if self.last is not None and reading.heard_ns < self.last.heard_ns:
            return self  # readings of two transactions crossed: the newer one stands
        return Watch(reading, self.suspect_until_ns)

    def suspect(self, now_ns: int) -> bool:
        return now_ns < self.suspect_until_ns
