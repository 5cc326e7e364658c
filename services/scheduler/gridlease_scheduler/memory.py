"""What the leader remembers of the fleet and of the queue, for one term.

Read whole once, then only what changed: rows tell the transaction of their last change, and each
reading starts at the oldest transaction that was open at the one before. What this leader writes
itself it knows already. Memory is a guess: every write locks the nodes that it gives away and goes
through only where they are as remembered, or where it still holds against what they are now.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable

from .domain.chips import Catalogue
from .domain.job import Reason
from .domain.links.paths import asks
from .domain.order.backfill import Shadow
from .domain.placing.index import Index
from .domain.placing.vacancy import Vacancies
from .domain.plan import Planner
from .domain.snapshot import Pending
from .ports import FleetChanges, Instant, Standing, Tx

_TAUGHT = 20  # jobs with equal needs that teach the packing policy at the first reading
_MOST = 200_000  # jobs that wait; those beyond wait unseen, the youngest


class Memory:
    """See above.

    ``fresh``: jobs that no plan has seen yet. ``blocked``: jobs that could run but for others, as
    the last plan by all rules had it. ``governed``: there are quotas, reservations or
    sites with figures of their power. ``now_ms``:
    the database's clock at the last reading.
    """

    def __init__(self, planner: Planner, changed: dict[str, int], now: Instant) -> None:
        self.planner = planner
        self.changed = changed
        self.queue: dict[str, Standing] = {}
        self.fresh: set[str] = set()
        self.blocked: set[str] = set()
        self.contested: set[str] = set()
        self.shadows: tuple[Shadow, ...] = ()
        self.vacancies = Vacancies()
        self.governed = now.governed
        self.linked = now.linked
        self.now_ms = now.ms
        self._since = now.transaction
        self._freed = -1

    @classmethod
    async def read(cls, tx: Tx, catalogue: Catalogue) -> Memory:
        """All of it, anew."""
        gc.disable()  # nothing of it is garbage, and looking for some takes as long as reading
        try:
            return await cls._read(tx, catalogue)
        finally:
            gc.enable()

    @classmethod
    async def _read(cls, tx: Tx, catalogue: Catalogue) -> Memory:
        now = await tx.nodes.now()
        fleet = await tx.nodes.fleet()
        memory = cls(Planner(Index(fleet.nodes, catalogue)), dict(fleet.changed), now)
        kinds: dict[int, int] = {}
        for standing in await tx.jobs.queue(_MOST):
            task = standing.pending
            memory.queue[task.job] = standing
            kinds[id(task.needs)] = seen = kinds.get(id(task.needs), 0) + 1
            if seen <= _TAUGHT:
                memory.planner.arrive(task)
        memory.fresh.update(memory.queue)
        return memory

    async def refresh(self, tx: Tx) -> None:
        """What changed since the last reading."""
        now = await tx.nodes.now()
        fleet = await tx.nodes.fleet_changes(self._since, self.changed)
        queue = await tx.jobs.queue_changes(self._since)
        self._since, self.now_ms = now.transaction, now.ms
        self.governed, self.linked = now.governed, now.linked
        self.see(fleet)
        for name in queue.left:
            self.drop(name)
        for standing in queue.waiting:
            known = self.queue.get(standing.pending.job)
            if known is None or known.pending != standing.pending:
                self._wait(standing)

    def see(self, fleet: FleetChanges) -> None:
        """Nodes are like this now."""
        index = self.planner.index
        for node in fleet.nodes:
            index.replace(node)
        for node_id in fleet.gone:
            self.changed.pop(node_id, None)
            if node_id in index.hosts:
                index.remove(node_id)
        self.changed.update(fleet.changed)

    def due(self) -> list[Pending]:
        """Those worth a decision: all if something came free, else those that nobody has seen."""
        freed = self.planner.index.freed
        if freed != self._freed:
            self._freed = freed
            found = [standing.pending for standing in self.queue.values()]
        else:
            found = [self.queue[name].pending for name in sorted(self.fresh)]
        self.fresh.clear()
        return found

    def drop(self, name: str) -> None:
        """It does not wait any more."""
        self.queue.pop(name, None)
        self.fresh.discard(name)
        self.blocked.discard(name)

    def again(self, names: Iterable[str]) -> None:
        """Decide about these once more, though nothing came free."""
        self.fresh.update(name for name in names if name in self.queue)

    def plain(self, task: Pending) -> bool:
        """Can it be in nobody's way, whatever the rules say?"""
        needs = task.needs
        if self.governed or needs.deferrable_ms or (self.linked and asks(needs.network)):
            return False
        if not self.blocked:
            return True
        if needs.accelerator is None:
            return False
        return not any(chip in self.contested for chip, _ in self.planner.chips(needs))

    def block(self, tasks: Iterable[Pending], shadows: tuple[Shadow, ...]) -> None:
        """These could run but for others, and those were promised a start."""
        self.blocked.clear()
        self.contested.clear()
        for task in tasks:
            chips = self.planner.chips(task.needs)
            if chips:
                self.blocked.add(task.job)
                self.contested.update(chip for chip, _ in chips)
        self.shadows = shadows

    def told(self, name: str, reason: Reason) -> bool:
        """Note why a job waits; whether that is news to it. Figures alone are not."""
        standing = self.queue.get(name)
        if standing is None or standing.reason is reason:
            return False
        before = standing.reason
        self.queue[name] = Standing(standing.pending, reason)
        return (before.code, before.message) != (reason.code, reason.message)

    def _wait(self, standing: Standing) -> None:
        task = standing.pending
        if task.job not in self.queue and task.attempt == 1:
            self.planner.arrive(task)
        self.queue[task.job] = standing
        self.fresh.add(task.job)
