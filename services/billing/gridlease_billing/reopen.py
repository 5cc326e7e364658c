"""After a restore: fences every lease, and opens the doors once no older grant can still run.

Source: docs/lease-protocol.md, section 11: grants that were given after the backup are not in these
books; until the longest of them has ended, nobody may be given the same device again.
"""

from __future__ import annotations

import asyncio
import logging

from gridlease_billing.close import Closure, close
from gridlease_billing.domain.grant_row import Cause, Terms
from gridlease_billing.ports import Books
from gridlease_billing.report_ports import ReportBook

_LOG = logging.getLogger(__name__)
_BATCH = 500


async def fence_restored(books: Books, book: ReportBook, terms: Terms) -> int | None:
    """How many leases it fenced; None where these books did not come from a backup."""
    async with book.work() as tx:
        if await tx.restored() is None:
            return None
    fenced, parked = 0, -1
    while True:
        async with book.work() as tx:
            leases = await tx.unfinished(_BATCH)
        if not leases or len(leases) == parked:
            return fenced
        answered = await close(books, [Closure(it, 0, Cause.RESTORED) for it in leases], terms)
        fenced += len(answered)
        parked = len(leases) if not answered else -1  # their books contradict themselves: skipped


async def reopen(books: Books, book: ReportBook, terms: Terms, longest_ms: int) -> None:
    """Returns at once, or when ``longest_ms`` have passed since the restore."""
    fenced = await fence_restored(books, book, terms)
    if fenced is None:
        return
    async with book.work() as tx:
        mark = await tx.restored()
        now_ms = await tx.now_ms()
    if mark is None:
        return
    # Never longer than the longest grant, whatever clocks say.
    wait_ms = min(longest_ms, max(0, mark[1] + longest_ms - now_ms))
    facts = {"leases": fenced, "wait_ms": wait_ms}
    _LOG.warning("restored books: leases are fenced, the doors open later", extra=facts)
    await asyncio.sleep(wait_ms / 1_000)
    async with book.work() as tx:
        await tx.opened(mark[0], await tx.now_ms())
