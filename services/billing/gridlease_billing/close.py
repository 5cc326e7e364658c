"""Fences leases, so that no grant of theirs grows again, and says how long they may still run."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from gridlease_billing.domain import grant
from gridlease_billing.domain.credits import Owed, cut_short, owed
from gridlease_billing.domain.grant_row import Cause, Terms
from gridlease_billing.domain.supplier import against
from gridlease_billing.meter_charge import charge_meters
from gridlease_billing.ports import Books, Change, Work
from gridlease_billing.suspense import suspend

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Closure:
    """One lease to fence.

    ``notice_ms``: the warning to allow for. ``cut_short_ms``: how much of the warning that an
    earlier call announced was not given.
    """

    lease_id: str
    notice_ms: int
    cause: Cause
    cut_short_ms: int = 0


async def close(books: Books, closures: Sequence[Closure], terms: Terms) -> dict[str, int]:
    """``wait_ms`` by lease; 0 = it cannot run any more. Idempotent.

    A lease whose books contradict themselves is not in it: it is not fenced.
    """
    first = {it.lease_id: it for it in reversed(closures)}

    async def work(tx: Work) -> dict[str, int]:
        stored = await tx.leases.lock(first)
        wallets = await tx.ledger.lock_wallets({it.row.ask.tenant for it in stored.values()})
        now = await tx.now()
        waits: dict[str, int] = {}
        debts: dict[str, Owed] = {}
        changes: list[Change] = []
        for lease, it in first.items():
            row = stored[lease].row if lease in stored else None
            try:
                closed = grant.close(
                    row, lease, it.notice_ms, it.cause, now.ms, terms, clock_suspect=now.suspect
                )
            except AssertionError as error:  # its books contradict themselves: others go on
                _LOG.error("a lease is parked", extra={"lease": lease, "found": error})
                continue
            waits[lease] = closed.wait_ms
            # A row that time has ended already was not ended by us.
            running = row is not None and now.ms < row.ends_at_ms
            debt = owed(row, it.notice_ms, it.cause) if running else None
            if debt is None and it.cut_short_ms:
                debt = cut_short(row, it.cut_short_ms)
            if debt is not None:
                debts[lease] = debt
            changes.append(Change(row, closed.row, closed.effect))
        await tx.leases.insert([it for it in changes if it.before is None], now.ms)
        known = [it for it in changes if it.before is not None]
        await tx.leases.update(known)
        await tx.ledger.post(known, wallets, now.ms)
        await charge_meters(tx, known, now.ms)
        after = {it.after.lease_id: it.after for it in known}
        await tx.evidence.raise_alarms(await suspend(tx, stored, after, {}, now.ms), now.ms)
        contracts = await tx.ledger.contracts({stored[it].row.ask.contract for it in debts})
        again = {_key(lease, it) for lease, it in debts.items() if it.mark}
        paid = await tx.ledger.used(again) if again else frozenset()
        expense = await tx.ledger.platform("sla_expense") if debts else 0
        for lease, debt in sorted(debts.items()):
            ask = stored[lease].row.ask
            sides = {wallets[ask.tenant].account: debt.amount_nano}
            sides |= against(contracts.get(ask.contract), debt.amount_nano, expense)
            if (key := _key(lease, debt)) not in paid:
                await tx.ledger.journal(debt.kind, key, lease, sides, now.ms)
        return waits

    return await books.run(work)


def _key(lease: str, debt: Owed) -> str:
    return f"{debt.kind}/{lease}{debt.mark}"
