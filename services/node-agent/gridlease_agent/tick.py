"""Brings running counters up to now on record, never past a task's end."""

from __future__ import annotations

import asyncio

from gridlease_agent.book import Book
from gridlease_agent.domain import lease, meters
from gridlease_agent.domain.spool import Phase, Spool
from gridlease_agent.ports import Host
from gridlease_agent.runtimes.states import SandboxRunner


async def tick(book: Book, host: Host, sandboxes: SandboxRunner) -> Spool:
    """Write the counters down and answer the spool.

    The clock is read before a task is seen alive: whatever its keeper writes down as its end
    comes later, so no counter is ever above the time that the task ran.
    """
    now = host.now()
    started = [row.lease_id for row in book.spool.rows.values() if row.phase is Phase.STARTING]
    found = await asyncio.to_thread(sandboxes.alive, started) if started else ()
    alive = frozenset(found)
    sent = await asyncio.to_thread(sandboxes.egress_bytes) if started else {}
    return await book.change(lambda spool: meters.sent(lease.ticked(spool, now, alive), sent))
