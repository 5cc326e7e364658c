"""Messages that could not be given to anybody: counted by reason, never a crash."""

from __future__ import annotations

import collections

MALFORMED = "malformed"  # not this protocol
UNKNOWN_CALL = "unknown_call"  # of a call that has ended, or never was
NO_REPLY = "no_reply"  # an opening without a place for the answer
FOREIGN_REPLY = "foreign_reply"  # a node asked for an answer outside its own names
CALLBACK_FAILED = "callback_failed"  # our own code raised: a bug, see the log


class DeadLetters:
    """One count for each reason; ``total`` is what a metric shows."""

    def __init__(self) -> None:
        self._counts: collections.Counter[str] = collections.Counter()

    def count(self, reason: str) -> None:
        self._counts[reason] += 1

    @property
    def total(self) -> int:
        return self._counts.total()

    def by_reason(self) -> dict[str, int]:
        return dict(self._counts)
