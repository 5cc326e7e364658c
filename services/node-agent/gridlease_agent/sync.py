"""Tells the scheduler what this node has and learns what it should have."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Collection

from gridlease_kernel.faults import Fault

from gridlease_agent.book import Book
from gridlease_agent.domain import lease
from gridlease_agent.domain.progress import Checkpoint, TaskReport
from gridlease_agent.domain.spool import Phase, Row
from gridlease_agent.domain.task import SCRATCH, wanted
from gridlease_agent.ports import Desired, Files, Host, Preload, Scheduler, Seen

_LOG = logging.getLogger(__name__)


class Syncer:
    """Asks at connection, on a hint, after a change of its own, and on the slow tick."""

    def __init__(
        self,
        book: Book,
        host: Host,
        scheduler: Scheduler,
        files: Files,
        devices: Collection[str],
        tick_ms: int,
        jitter: random.Random,
        wish: Callable[[tuple[Preload, ...]], None] | None = None,
    ) -> None:
        """``wish``: is told what the scheduler would have at hand here."""
        self._book = book
        self._host = host
        self._scheduler = scheduler
        self._files = files
        self._devices = sorted(device for device in devices if not device.startswith(SCRATCH))
        self._tick_ms = tick_ms
        self._jitter = jitter
        self._wish = wish
        self._silent = False

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            answered = await self.sync()
            # A hint that comes while we ask rings again, so nothing waits for the tick.
            span_s = self._tick_ms / 1000 * self._jitter.uniform(0.9, 1.1)
            await self._book.news.wait(span_s)
            if not answered:
                await asyncio.sleep(min(0.2, span_s))  # rings do not make a storm of retries

    async def sync(self) -> bool:
        """One exchange; whether it was answered."""
        running = [k for k, row in self._book.spool.rows.items() if _runs(row)]
        reports = await asyncio.to_thread(self._files.reports.read, running)
        spool = self._book.spool
        seen = [
            self._seen(one, spool.rows[one.lease_id], reports.get(one.lease_id))
            for one in lease.sync_report(spool)
        ]
        boot_id = self._host.now().boot_id
        try:
            desired = await self._scheduler.sync(spool, boot_id, seen, self._devices)
        except Fault as fault:
            if not self._silent:
                _LOG.warning("the scheduler does not answer: %s", fault)
            self._silent = True
            return False
        self._silent = False
        self._book.synced += 1
        await self._follow(desired)
        told = [x.sighting.lease_id for x in seen if x.sighting.wiped]
        if any(x in self._book.spool.rows for x in told):
            await self._book.change(lambda spool: lease.receipts_told(spool, told))
        return True

    def _seen(self, one: lease.Sighting, row: Row, report: TaskReport | None) -> Seen:
        ending = self._book.ending(one.lease_id)
        if ending.checkpoint:  # read after its end, and on disk with it
            report = TaskReport(Checkpoint(ending.checkpoint, ending.checkpoint_ns))
        return Seen(one, _runs(row), ending, report or TaskReport())

    async def _follow(self, desired: Desired) -> None:
        spool = self._book.spool
        if desired.generation < spool.generation:
            _LOG.info("an older desired set was dropped", extra={"generation": desired.generation})
            return
        if self._wish is not None:
            self._wish(desired.preload)
        self._book.unseal(task for task, _ in desired.tasks)
        names = {task.lease_id for task, _ in desired.tasks}
        names |= {order.lease_id for order in desired.stop}
        if desired.generation == spool.generation and names == spool.named:
            return
        now = self._host.now()
        await self._book.change(
            lambda spool: lease.apply_desired_set(
                spool,
                now,
                desired.generation,
                [wanted(task) for task, _ in desired.tasks],
                desired.stop,
            ),
            tasks={task.lease_id: (task, raw) for task, raw in desired.tasks},
        )


def _runs(row: Row) -> bool:
    """The workload was released, and nothing has been seen of its end."""
    return row.phase is Phase.STARTING and row.ready_ns is not None
