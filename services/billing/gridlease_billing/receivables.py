"""Payments of what invoices ask for beyond prepaid credit, refunds, and what is still open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gridlease_kernel.faults import Missing, Precondition

from gridlease_billing.credit import reused
from gridlease_billing.domain.receivable import (
    Ages,
    Owed,
    Parts,
    Terms,
    refunded,
    settled_by,
)
from gridlease_billing.invoice import no_such
from gridlease_billing.ports import EVERY, Books, Work
from gridlease_billing.receivable_ports import NewPayment, NewRefund, Payment

_MOST_TENANTS = 1_000  # whose ages are told one by one
_FIRST = (-(2**62), "")


@dataclass(frozen=True, slots=True)
class Told:
    """What an invoice asks for, now, and what was paid of it."""

    owed: Owed
    payments: tuple[Payment, ...]
    now_ms: int


@dataclass(frozen=True, slots=True)
class Open:
    """A page of what is open, and the sums over all pages."""

    owed: tuple[Owed, ...]
    ages: tuple[Ages, ...]
    next_key: tuple[int, str] | None
    now_ms: int


async def get_receivable(books: Books, tenant: str, name: str) -> Told:
    """One invoice's.

    Raises:
        Missing: INVOICE_NOT_FOUND, of drafts and credit notes too: they ask for nothing.
    """

    async def work(tx: Work) -> Told:
        found = await tx.receivables.get(tenant, name)
        if found is None:
            raise no_such(name)
        return await _told(tx, found)

    return await books.run(work, tenant=tenant)


async def list_receivables(
    books: Books, tenant: str, after: tuple[int, str] | None, limit: int
) -> Open:
    """What is open, due first first; ``tenant`` empty = of all."""

    async def work(tx: Work) -> Open:
        now = await tx.now()
        found = await tx.receivables.page(tenant, after or _FIRST, limit + 1)
        ages = await tx.receivables.ages(tenant, now.ms, _MOST_TENANTS)
        last = found[limit - 1] if len(found) > limit else None
        key = None if last is None else (last.due_ms, last.invoice)
        return Open(tuple(found[:limit]), tuple(ages), key, now.ms)

    return await books.run(work, tenant=tenant or EVERY)


async def of_invoices(
    books: Books, tenant: str, names: Sequence[str]
) -> tuple[Mapping[str, Owed], int]:
    """What a tenant's invoices ask for, by name, and when that was; drafts and notes are absent."""

    async def work(tx: Work) -> tuple[Mapping[str, Owed], int]:
        return await tx.receivables.of(names), (await tx.now()).ms

    return await books.run(work, tenant=tenant)


async def pay(books: Books, new: NewPayment) -> tuple[Payment, Told]:
    """Settles an invoice, or a part of it, once for each request id; what is more is prepaid.

    Raises:
        Missing: INVOICE_NOT_FOUND.
        Precondition: NOTHING_OPEN.
        Invalid: REQUEST_ID_REUSED.
    """

    async def work(tx: Work) -> tuple[Payment, Told]:
        wallet = await tx.ledger.open_wallet(new.tenant)
        owed = await tx.receivables.get(new.tenant, new.invoice, lock=True)
        if owed is None:
            raise no_such(new.invoice)
        before = await tx.receivables.find_payment(new.tenant, new.request_id)
        if before is not None:
            asked = (owed.invoice, "", new.amount_nano or before.parts.amount_nano)
            if (before.invoice, before.refunds, before.parts.amount_nano) != asked:
                raise reused("another payment")
            return before, await _told(tx, owed)
        parts = settled_by(owed, new.amount_nano)
        now = await tx.now()
        note = new.note or owed.number
        made = Payment(new.tenant, new.request_id, owed.invoice, parts, "", new.note, now.ms)
        await _post(tx, made, "payment", note, wallet.account)
        return made, await _told(tx, await _again(tx, owed))

    return await books.run(work)


async def refund(books: Books, new: NewRefund) -> tuple[Payment, Told]:
    """Takes a payment back, or a part of it, once for each request id: what was prepaid of it
    first, then what settled its invoice, which is open again.

    Raises:
        Missing: PAYMENT_NOT_FOUND.
        Precondition: NOTHING_LEFT_TO_REFUND, REFUND_TOO_LARGE, PAYMENT_SPENT.
        Invalid: REQUEST_ID_REUSED.
    """

    async def work(tx: Work) -> tuple[Payment, Told]:
        paid = await tx.receivables.find_payment(new.tenant, new.payment)
        if paid is None or paid.refunds:
            raise _no_payment(new.payment)
        owed = await tx.receivables.get(new.tenant, paid.invoice, lock=True)
        assert owed is not None, paid
        before = await tx.receivables.find_payment(new.tenant, new.request_id)
        if before is not None:
            asked = (new.payment, -new.amount_nano or before.parts.amount_nano)
            if (before.refunds, before.parts.amount_nano) != asked:
                raise reused("another payment")
            return before, await _told(tx, owed)
        earlier = await tx.receivables.refunds_of(new.tenant, new.payment)
        parts = refunded(paid.parts, earlier, new.amount_nano)
        wallet = (await tx.ledger.lock_wallets([new.tenant]))[new.tenant]
        if wallet.available_nano < -parts.prepaid_nano:
            raise _spent(wallet.available_nano)
        now = await tx.now()
        made = Payment(
            new.tenant, new.request_id, paid.invoice, parts, new.payment, new.note, now.ms
        )
        await _post(tx, made, "refund", new.note or new.payment, wallet.account)
        return made, await _told(tx, await _again(tx, owed))

    return await books.run(work)


async def list_terms(books: Books) -> list[Terms]:
    """Terms in force: everybody's, then tenants' own."""

    async def work(tx: Work) -> list[Terms]:
        return await tx.receivables.terms()

    return await books.run(work)


async def set_terms(books: Books, tenant: str, due_days: int, grace_days: int | None) -> Terms:
    """Writes terms: the days for invoices to come, the grace for all that is open."""

    async def work(tx: Work) -> Terms:
        terms = Terms(tenant, due_days, grace_days, (await tx.now()).ms)
        await tx.receivables.set_terms(terms)
        return terms

    return await books.run(work)


async def _post(tx: Work, made: Payment, kind: str, cause: str, prepaid_account: int) -> None:
    """The journal, what it settles, and the row that says so: one commit."""
    parts: Parts = made.parts
    sides = {
        await tx.ledger.platform("cash"): -parts.amount_nano,
        await tx.ledger.receivable(made.tenant): parts.applied_nano,
        prepaid_account: parts.prepaid_nano,
    }
    key = f"payment/{made.tenant}/{made.request_id}"
    journal = await tx.ledger.journal(kind, key, cause, sides, made.recorded_ms)
    await tx.receivables.settle(made.invoice, parts.applied_nano)
    await tx.receivables.write(made, journal)


async def _again(tx: Work, owed: Owed) -> Owed:
    found = await tx.receivables.get(owed.tenant, owed.invoice)
    assert found is not None, owed
    return found


async def _told(tx: Work, owed: Owed) -> Told:
    payments = await tx.receivables.payments(owed.invoice)
    return Told(owed, tuple(payments), (await tx.now()).ms)


def _no_payment(request_id: str) -> Missing:
    return Missing(
        f"There is no payment {request_id}.",
        reason="PAYMENT_NOT_FOUND",
        field="payment",
        remedy="Show the invoice's receivable to see its payments by their request ids.",
    )


def _spent(available_nano: int) -> Precondition:
    return Precondition(
        "What was prepaid by this payment is spent, or held for what runs.",
        reason="PAYMENT_SPENT",
        field="amount_nano",
        remedy="Stop what runs, have the tenant pay in, or refund less.",
        metadata={"available_nano": str(available_nano)},
    )
