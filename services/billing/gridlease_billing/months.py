"""Keeps the books' months made ahead of time, so that no journal ever waits for one."""

from __future__ import annotations

from gridlease_billing.ports import Books, Work

AHEAD = 3  # this month and the two after it


async def make_months(books: Books) -> int:
    """Makes what is missing; how many partitions are new. Idempotent."""

    async def work(tx: Work) -> int:
        now = await tx.now()
        if now.suspect:  # a jump must not scatter months over the centuries
            return 0
        return await tx.ledger.create_months(now.ms, AHEAD)

    return await books.run(work)
