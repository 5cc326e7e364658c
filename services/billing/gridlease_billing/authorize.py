"""Prices and holds new leases, all or none of a call or of a gang; what exists stays as it is."""

from __future__ import annotations

from collections.abc import Sequence

from gridlease_kernel.faults import Invalid

from gridlease_billing.domain import grant
from gridlease_billing.domain.admission import Decision, admit
from gridlease_billing.domain.grant_row import Ask, Terms
from gridlease_billing.domain.means import Means
from gridlease_billing.domain.price import quote
from gridlease_billing.ports import Books, Change, Work


async def authorize(
    books: Books, asks: Sequence[Ask], terms: Terms, *, each_alone: bool = False
) -> tuple[Decision, ...]:
    """One decision for each lease, in the order asked.

    Args:
        each_alone: Each gang is authorised or refused by itself.

    Raises:
        Invalid: DUPLICATE_LEASE where one lease is asked for twice.
    """
    if len({ask.lease_id for ask in asks}) != len(asks):
        raise Invalid(
            "One lease stands twice in this call.",
            reason="DUPLICATE_LEASE",
            field="orders",
            remedy="Give each order a lease id of its own.",
        )

    async def work(tx: Work) -> tuple[Decision, ...]:
        existing = await tx.leases.lock([ask.lease_id for ask in asks])
        wallets = await tx.ledger.lock_wallets({ask.tenant for ask in asks})
        now = await tx.now()
        prices = await tx.prices.in_force({ask.kind for ask in asks}, now.ms)
        priorities = await tx.prices.priorities(now.ms)
        unpaid = await tx.receivables.overdue({ask.tenant for ask in asks}, now.ms)
        spent = await tx.leases.spent_nano({ask.job for ask in asks if ask.budget_nano is not None})
        found = {ask.lease_id: prices.get(ask.kind) for ask in asks}
        admitted = admit(
            {lease: it.row for lease, it in existing.items()},
            asks,
            {
                ask.lease_id: quote(price, ask.quantity_milli, ask.priority, priorities)
                for ask in asks
                if (price := found[ask.lease_id]) is not None
            },
            Means(
                {tenant: it.available_nano for tenant, it in wallets.items()},
                spent,
                {tenant: it.hint for tenant, it in unpaid.items()},
            ),
            now.ms,
            terms,
            each_alone=each_alone,
        )
        versions = {lease: price.version for lease, price in found.items() if price is not None}
        changes = [
            Change(None, row, grant.effect(None, row), versions[row.lease_id])
            for row in admitted.rows
        ]
        await tx.leases.insert(changes, now.ms)
        await tx.ledger.post(changes, wallets, now.ms)
        return admitted.decisions

    return await books.run(work)
