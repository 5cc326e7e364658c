"""What becomes of a job that waits for more tasks than there is room for?

With every pass it asks for half as many, down to its least, and for a while it is not given so many
again: what stands in its way (a span, a price, a cap) is likely to stand there still.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from gridlease_scheduler.domain.job import Reason
from gridlease_scheduler.domain.sizing.flexible import Flexible, Resize

REMEMBERED_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class Patience:
    """``passed_ms``: when the last pass was. ``vain``: how many tasks a job waited for in vain, and
    until when that is remembered."""

    passed_ms: int = 0
    vain: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def most(self, job: Flexible, tasks: int, now_ms: int) -> int:
        """How many tasks it may be given, of so many; never fewer than it has."""
        vain, until_ms = self.vain.get(job.job, (0, 0))
        if until_ms <= now_ms:
            return tasks
        return max(job.tasks, min(tasks, vain - 1))


def lessened(
    jobs: Iterable[Flexible], patience: Patience, now_ms: int
) -> tuple[tuple[Resize, ...], Patience]:
    """Who waited through a whole pass for more tasks than its least, and what is remembered."""
    found = []
    vain = {job: each for job, each in patience.vain.items() if each[1] > now_ms}
    for job in jobs:
        late = job.queued_ms > patience.passed_ms
        if job.running or job.asleep or late or job.tasks <= job.tasks_min:
            continue
        tasks = max(job.tasks_min, job.tasks // 2)
        evidence = {"from": str(job.tasks), "to": str(tasks)}
        message = f"There was no room for {job.tasks} tasks, so it asks for {tasks}."
        reason = Reason("RESIZED", message, "It grows again where that pays.", evidence)
        found.append(Resize(job.job, job.attempt, tasks, running=False, reason=reason))
        vain[job.job] = job.tasks, now_ms + REMEMBERED_MS
    return tuple(found), Patience(now_ms, vain)
