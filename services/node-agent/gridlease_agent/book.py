"""The spool, in memory and on disk: on disk first, so whatever is read here is durable."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping

from gridlease_agent.domain.lease import sync_report
from gridlease_agent.domain.spool import Phase, Spool
from gridlease_agent.domain.task import Ending, Task
from gridlease_agent.ports import SpoolStore

Decide = Callable[[Spool], Spool]
_NO_ENDING = Ending()


class Bell:
    """Wakes one waiter; rings that nobody has heard yet are one."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def ring(self) -> None:
        self._event.set()

    async def wait(self, timeout_s: float) -> bool:
        """True if it rang, False after ``timeout_s``."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._event.wait()
        except TimeoutError:
            return False
        finally:
            self._event.clear()
        return True


class Book:
    """Who changes the spool goes through ``change``; one at a time."""

    def __init__(
        self,
        store: SpoolStore,
        spool: Spool,
        tasks: Mapping[str, Task],
        endings: Mapping[str, Ending],
    ) -> None:
        self._store = store
        self._spool = spool
        self._tasks = dict(tasks)
        self._endings = dict(endings)
        self._lock = asyncio.Lock()
        self.work = Bell()  # something to do on this node
        self.news = Bell()  # something to tell the scheduler
        self.strangers: frozenset[str] = frozenset()  # live sandboxes that no row speaks for
        self.synced = self.settled = 0  # answers of the scheduler and of billing in this life
        self.ask_billing = True  # a lease became known or ended since billing was asked

    @property
    def spool(self) -> Spool:
        """As it is on disk."""
        return self._spool

    def task(self, lease_id: str) -> Task | None:
        return self._tasks.get(lease_id)

    def tasks(self) -> Iterable[Task]:
        return self._tasks.values()

    def unseal(self, told: Iterable[Task]) -> None:
        """Secrets of tasks that were read from disk, as the scheduler tells of them again."""
        for task in told:
            known = self._tasks.get(task.lease_id)
            if known is not None and known.sealed:
                self._tasks[task.lease_id] = task

    def ending(self, lease_id: str) -> Ending:
        return self._endings.get(lease_id, _NO_ENDING)

    async def change(
        self,
        decide: Decide,
        *,
        tasks: Mapping[str, tuple[Task, bytes]] | None = None,
        endings: Mapping[str, Ending] | None = None,
    ) -> Spool:
        """Decide on what is on disk now, write it, then let it be seen.

        ``decide`` is given the current spool under the lock; ``tasks`` and ``endings`` are
        written with it, for the rows that it leaves.
        """
        async with self._lock:
            before = self._spool
            after = decide(before)
            if after is before and not tasks and not endings:
                return after
            fresh = {k: v for k, v in (tasks or {}).items() if k not in self._tasks}
            raw = {k: v[1] for k, v in fresh.items() if k in after.rows}
            await _finished(self._store.write, before, after, raw, endings or {})
            self._spool = after
            self._tasks |= {k: v[0] for k, v in fresh.items() if k in after.rows}
            self._endings |= endings or {}
            for lease_id in before.rows.keys() - after.rows.keys():
                self._tasks.pop(lease_id, None)
                self._endings.pop(lease_id, None)
        self._tell(before, after)
        return after

    def _tell(self, before: Spool, after: Spool) -> None:
        if sync_report(before) != sync_report(after) or before.dirty != after.dirty:
            self.news.ring()
        if _open(after) - _open(before) or _ended(after) - _ended(before):
            self.ask_billing = True
        self.work.ring()

    async def close(self) -> None:
        async with self._lock:
            self._store.close()


async def _finished(work: Callable[..., None], *arguments: object) -> None:
    """Run blocking work in a thread; a cancel waits for its end, so the file is ours alone."""
    running = asyncio.ensure_future(asyncio.to_thread(work, *arguments))
    try:
        await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise


def _open(spool: Spool) -> frozenset[str]:
    return frozenset(k for k, row in spool.rows.items() if row.phase is Phase.KNOWN)


def _ended(spool: Spool) -> frozenset[str]:
    return frozenset(k for k, row in spool.rows.items() if row.phase >= Phase.EXITED)
