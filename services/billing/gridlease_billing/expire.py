"""What time alone does: holds and grants end, and leases whose last word is overdue are final."""

from __future__ import annotations

import logging

from gridlease_billing.domain import grant
from gridlease_billing.domain.grant_row import Terms
from gridlease_billing.meter_charge import charge_meters
from gridlease_billing.ports import Books, Change, Work
from gridlease_billing.suspense import suspend

_LOG = logging.getLogger(__name__)
BATCH = 200


async def expire(books: Books, terms: Terms, limit: int = BATCH) -> int:
    """Moves at most ``limit`` leases on; how many it moved.

    Does nothing while the database's clock is suspect: a jump ahead must not end live leases.
    """

    async def work(tx: Work) -> int:
        now = await tx.now()
        if now.suspect:
            return 0
        stored = await tx.leases.lock_due(now.ms, terms.late_after_ms, limit)
        wallets = await tx.ledger.lock_wallets({it.row.ask.tenant for it in stored.values()})
        changes = []
        for it in stored.values():
            try:
                after = grant.expire(it.row, now.ms, terms)
            except AssertionError as error:  # its books contradict themselves: others go on
                _LOG.error("a lease is parked", extra={"lease": it.row.lease_id, "found": error})
                continue
            if after != it.row:
                changes.append(Change(it.row, after, grant.effect(it.row, after)))
        await tx.leases.update(changes)
        await tx.ledger.post(changes, wallets, now.ms)
        await charge_meters(tx, changes, now.ms)
        rows = {it.after.lease_id: it.after for it in changes}
        await tx.evidence.raise_alarms(await suspend(tx, stored, rows, {}, now.ms), now.ms)
        return len(changes)

    return await books.run(work)
