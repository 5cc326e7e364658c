"""How long a job rests after it was refused by somebody who is asked outside."""

from __future__ import annotations

from dataclasses import dataclass, field

_FIRST_PAUSE_MS = 1_000
_LAST_PAUSE_MS = 30_000


@dataclass(slots=True)
class Pauses:
    """How long each job rests after billing has refused it: doubling, up to a bound."""

    until_ms: dict[str, int] = field(default_factory=dict)
    last_ms: dict[str, int] = field(default_factory=dict)

    def rest(self, job: str, now_ms: int) -> None:
        """Refused once more."""
        self.last_ms[job] = min(_LAST_PAUSE_MS, self.last_ms.get(job, _FIRST_PAUSE_MS // 2) * 2)
        self.until_ms[job] = now_ms + self.last_ms[job]

    def over(self, now_ms: int) -> list[str]:
        """Jobs that have rested long enough."""
        found = [job for job, at in self.until_ms.items() if at <= now_ms]
        for job in found:
            del self.until_ms[job]
        return found

    def forget(self, job: str) -> None:
        """It was placed, or does not wait any more."""
        self.until_ms.pop(job, None)
        self.last_ms.pop(job, None)
