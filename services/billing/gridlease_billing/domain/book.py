"""A book along two times: when an entry is in force, and since when the book says so.

An entry is in force from its effective time until that of the next; of those with one effective
time, the last written. A later entry never changes what an earlier look at the book has seen: it
ends what stood there as of its own recorded time, and what stood there stays readable.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar


class Entry(Protocol):
    """One version of something. Times: database clock, ms."""

    @property
    def version(self) -> int: ...

    @property
    def effective_ms(self) -> int: ...

    @property
    def recorded_ms(self) -> int: ...


E = TypeVar("E", bound=Entry)


@dataclass(frozen=True, slots=True)
class Span:
    """A version in force in ``[valid_from_ms, valid_to_ms)``, so written in
    ``[recorded_from_ms, recorded_to_ms)``; None = no end is known."""

    version: int
    valid_from_ms: int
    valid_to_ms: int | None
    recorded_from_ms: int
    recorded_to_ms: int | None = None

    def holds(self, valid_ms: int, recorded_ms: int) -> bool:
        """Is it what the book said at ``recorded_ms`` of ``valid_ms``?"""
        return _within(self.valid_from_ms, self.valid_to_ms, valid_ms) and _within(
            self.recorded_from_ms, self.recorded_to_ms, recorded_ms
        )


def in_force(entries: Iterable[E], valid_ms: int, recorded_ms: int | None = None) -> E | None:
    """Of one thing's entries, the one in force at ``valid_ms``, as the book stood at
    ``recorded_ms`` (None: with all that is written)."""
    known = [
        it
        for it in entries
        if it.effective_ms <= valid_ms and (recorded_ms is None or it.recorded_ms <= recorded_ms)
    ]
    return max(known, key=lambda it: (it.effective_ms, it.version), default=None)


def spans(entries: Iterable[Entry]) -> list[Span]:
    """All rectangles of one thing's entries, in the order in which they were written; no two
    overlap. The schema's ``enter_book`` does the same, entry by entry."""
    found: list[Span] = []
    for entry in sorted(entries, key=lambda it: it.version):
        at = entry.effective_ms
        now_ms = max([entry.recorded_ms, *(it.recorded_from_ms for it in found)])
        open_now = [it for it in found if it.recorded_to_ms is None]
        hit = next((it for it in open_now if _within(it.valid_from_ms, it.valid_to_ms, at)), None)
        if hit is None:
            later = [it.valid_from_ms for it in open_now if it.valid_from_ms > at]
            until = min(later, default=None)
        else:
            until = hit.valid_to_ms
            found[found.index(hit)] = replace(hit, recorded_to_ms=now_ms)
            if hit.valid_from_ms < at:
                found.append(replace(hit, valid_to_ms=at, recorded_from_ms=now_ms))
        found.append(Span(entry.version, at, until, now_ms))
    return found


def _within(begins: int, ends: int | None, at: int) -> bool:
    return begins <= at and (ends is None or at < ends)
