"""Is there room for more tasks of a job that runs, as the fleet and the quotas are now?

A job that grows gives up what it has first: growth without a place would stop it for nothing.
"""

from __future__ import annotations

from gridlease_scheduler.domain.order.quota import Book, QuotaFull
from gridlease_scheduler.domain.plan import Placed, Planner
from gridlease_scheduler.domain.snapshot import Pending

from .flexible import Flexible


class Spare:
    """What is free, less what was promised in this pass; mutable, for the length of one pass."""

    def __init__(self, planner: Planner, book: Book) -> None:
        self._planner = planner
        self._book = book
        self._taken: list[Placed] = []

    def more(self, job: Flexible, tasks: int, chip: str = "") -> int:
        """How many more tasks of the job fit, of so many: all, or half of them, and so on.

        Args:
            chip: That they must have; empty = any that the job accepts.
        """
        while tasks > 0 and not self._fits(job, tasks, chip):
            tasks //= 2
        return tasks

    def give_back(self) -> None:
        """The planner is as it was."""
        for placed in self._taken:
            self._planner.release(placed)
        self._taken.clear()

    def _fits(self, job: Flexible, tasks: int, chip: str) -> bool:
        chips = self._planner.chips(job.needs)
        barred = {x for x, _ in chips if chip and x != chip}
        for other, milli in chips:
            if isinstance(self._book.admits(job.project, other, milli * tasks), QuotaFull):
                barred.add(other)
        decision = self._planner.decide(_asks(job, tasks), 0, barred)
        if not isinstance(decision, Placed):
            return False
        for member in decision.members:
            held = member.allocation
            self._book.hold(job.project, held.chip, held.quantity_milli)
        self._taken.append(decision)
        return True


def _asks(job: Flexible, tasks: int) -> Pending:
    return Pending(
        job.job, job.tenant, job.project, job.attempt + 1, 0, 0, 0, 0, job.needs, tasks=tasks
    )
