"""When a part that died is started again: a pure rule."""

from __future__ import annotations

from dataclasses import dataclass

FIRST_MS = 100
LAST_MS = 5_000
STEADY_MS = 20_000  # a part that lived this long starts again without delay


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before the next start, in milliseconds."""

    wait_ms: int = FIRST_MS

    def after_death(self, lived_ms: int) -> Backoff:
        """The rule for the start after this one: doubled up to a bound, reset by a long life."""
        if lived_ms >= STEADY_MS:
            return Backoff()
        return Backoff(min(self.wait_ms * 2, LAST_MS))
