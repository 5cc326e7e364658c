"""Which of the kept samples go, so that days fit where an hour did.

Young samples are kept as they were taken; older ones one in ten seconds, then one a minute: the
last of each span, so that counters lose nothing. A span is thinned only when all of it is old
enough, and longer spans are made of whole shorter ones: thinning now and again later keeps the
same as thinning once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

HOUR_MS = 3_600_000


class Rung(NamedTuple):
    """From this age on, one sample is kept of each span."""

    beyond_ms: int
    every_ms: int


class Mark(NamedTuple):
    """Where one sample stands. ``at_ms``: milliseconds since its boot."""

    sequence: int
    at_ms: int


LADDER = (Rung(HOUR_MS, 10_000), Rung(6 * HOUR_MS, 60_000))


def surplus(
    marks: Iterable[Mark], now_ms: int | None, ladder: Sequence[Rung] = LADDER
) -> tuple[int, ...]:
    """The sequences to drop.

    Args:
        marks: of one boot, in the order in which they were taken.
        now_ms: since the same boot; None = that boot is over, and all of it is old.
        ladder: by age; each span a whole number of those before.

    >>> surplus([Mark(1, 0), Mark(2, 9_999), Mark(3, 10_000)], HOUR_MS + 10_000)
    (1,)
    """
    dropped: list[int] = []
    before: Mark | None = None
    for mark in marks:
        if before is not None and _together(before, mark, now_ms, ladder):
            dropped.append(before.sequence)
        before = mark
    return tuple(dropped)


def _together(one: Mark, next_one: Mark, now_ms: int | None, ladder: Sequence[Rung]) -> bool:
    """Whether both stand in one span that is old enough."""
    for beyond_ms, every_ms in ladder:
        span = one.at_ms // every_ms
        if span != next_one.at_ms // every_ms:
            continue
        if now_ms is None or now_ms >= (span + 1) * every_ms + beyond_ms:
            return True
    return False


def most_kept(hours: int, ladder: Sequence[Rung] = LADDER, every_ms: int = 1000) -> int:
    """The most samples that so many hours leave, taken one in ``every_ms``.

    At each rung one span may not be whole yet.

    >>> most_kept(24)
    6496
    """
    left_ms, count, begins_ms = hours * HOUR_MS, 0, 0
    for rung in ladder:
        span_ms = min(left_ms, rung.beyond_ms - begins_ms)
        count += span_ms // every_ms + rung.every_ms // every_ms
        left_ms, begins_ms, every_ms = left_ms - span_ms, rung.beyond_ms, rung.every_ms
    return count + left_ms // every_ms
