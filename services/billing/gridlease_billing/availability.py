"""Credits for months in which a project's leases were there too little; each month once."""

from __future__ import annotations

from gridlease_billing.domain.sla import Month, month_of
from gridlease_billing.domain.supplier import against
from gridlease_billing.ports import Books, Work

BATCH = 100
DAY_MS = 86_400_000
SETTLED_MS = 8 * DAY_MS  # after a month's end: by then what fell silent in it is final
LOOK_BACK_MS = 100 * DAY_MS
KIND = "availability_credit"


async def credit_months(books: Books, limit: int = BATCH) -> int:
    """Looks at months that are over and settled, at most ``limit`` of projects; how many."""

    async def work(tx: Work) -> int:
        now = await tx.now()
        if now.suspect:
            return 0
        due = await tx.sla.due(now.ms - SETTLED_MS, now.ms - LOOK_BACK_MS, limit)
        for tenant, project, month_ms in due:
            month = month_of(await tx.sla.stays(tenant, project, month_ms))
            await tx.sla.write(tenant, project, month_ms, month, now.ms)
            await _post(tx, tenant, month, now.ms)
        return len(due)

    return await books.run(work)


async def _post(tx: Work, tenant: str, month: Month, now_ms: int) -> None:
    """Each side gives back as it got its part: a partner's node that was lost is its own affair."""
    if not month.credits:
        return
    await tx.ledger.lock_wallets([tenant])
    wallet = await tx.ledger.open_wallet(tenant)
    expense = await tx.ledger.platform("sla_expense")
    contracts = await tx.ledger.contracts({stay.contract for stay, _ in month.credits})
    for stay, nano in month.credits:
        sides = {wallet.account: nano}
        sides |= against(contracts.get(stay.contract), nano, expense)
        await tx.ledger.journal(KIND, f"{KIND}/{stay.lease}", stay.lease, sides, now_ms)
