"""Pays credit in, and says what a tenant has."""

from __future__ import annotations

from gridlease_kernel.faults import Exhausted, Invalid
from gridlease_kernel.money import MAX_NANO, Money

from gridlease_billing.ports import Books, Credit, JournalSummary, Wallet, Work

NOTHING = Wallet(0, 0, 0)


async def pay_in(books: Books, credit: Credit) -> Wallet:
    """Credits a tenant with a balanced journal, once for each request id; the balance now.

    Raises:
        Invalid: REQUEST_ID_REUSED where the id was used for another payment.
        Exhausted: BALANCE_TOO_LARGE beyond what a balance can hold.
    """

    async def work(tx: Work) -> Wallet:
        wallets = await tx.ledger.lock_wallets([credit.tenant])
        before = await tx.ledger.find_credit(credit.tenant, credit.request_id)
        if before is None:
            _check_room(wallets.get(credit.tenant, NOTHING), credit)
            now = await tx.now()
            await tx.ledger.credit(credit, now.ms)
        elif before != credit:
            raise reused("another payment")
        return await tx.ledger.wallet(credit.tenant) or NOTHING

    return await books.run(work)


async def balance(books: Books, tenant: str) -> Wallet:
    """What a tenant has; nothing for one that never paid."""

    async def work(tx: Work) -> Wallet:
        return await tx.ledger.wallet(tenant) or NOTHING

    return await books.run(work, tenant=tenant)


async def journal_summary(books: Books) -> JournalSummary:
    """The books' state, for their check."""

    async def work(tx: Work) -> JournalSummary:
        return await tx.ledger.summary()

    return await books.run(work)


def reused(what: str) -> Invalid:
    """The fault for a request id that comes with another body."""
    return Invalid(
        f"This request_id was used for {what}.",
        reason="REQUEST_ID_REUSED",
        field="request_id",
        remedy="Use a new request_id for a new request.",
    )


def _check_room(wallet: Wallet, credit: Credit) -> None:
    room = MAX_NANO - wallet.posted_nano
    if credit.amount_nano > room:
        raise Exhausted(
            f"{credit.tenant} would have more than a balance can hold.",
            reason="BALANCE_TOO_LARGE",
            field="amount_nano",
            remedy=f"Pay in at most {Money(room)}.",
        )
