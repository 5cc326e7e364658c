"""Pays credit in, in another currency: one balanced journal in each, and the rate between them."""

from __future__ import annotations

from dataclasses import dataclass

from gridlease_kernel.faults import Invalid
from gridlease_kernel.money import MAX_NANO

from gridlease_billing.credit import reused
from gridlease_billing.domain.exchange import Exchanged, convert
from gridlease_billing.domain.price import CURRENCY
from gridlease_billing.ports import Books, Wallet, Work


@dataclass(frozen=True, slots=True)
class Foreign:
    """A payment by a tenant. One unit of ``currency`` is numerator/denominator of the books'."""

    tenant: str
    amount_nano: int
    currency: str
    numerator: int
    denominator: int
    note: str
    request_id: str


async def pay_in_foreign(books: Books, paid: Foreign) -> tuple[Exchanged, Wallet]:
    """Credits a tenant, once for each request id; what was exchanged, and the balance now.

    Raises:
        Invalid: SAME_CURRENCY, UNKNOWN_CURRENCY, AMOUNT_TOO_SMALL, AMOUNT_TOO_LARGE,
            REQUEST_ID_REUSED.
    """
    made = convert(paid.currency, paid.amount_nano, paid.numerator, paid.denominator)
    _check(made)
    key = f"fx/{paid.tenant}/{paid.request_id}"

    async def work(tx: Work) -> tuple[Exchanged, Wallet]:
        wallet = await tx.ledger.open_wallet(paid.tenant)
        await tx.ledger.lock_wallets([paid.tenant])
        before = await tx.ledger.exchanged(key)
        if before is not None:
            if before != made:
                raise reused("another payment")
            return before, wallet
        cash = await tx.ledger.platform("cash", paid.currency)
        foreign = await tx.ledger.platform("fx", paid.currency)
        if not cash:
            raise _refused(
                "UNKNOWN_CURRENCY",
                "currency",
                f"The books have no {paid.currency}.",
                "Pay in one of the currencies of the books, such as EUR.",
            )
        now = await tx.now()
        note = paid.note or paid.tenant
        first = await tx.ledger.journal(
            "fx", f"{key}/from", note, {cash: -made.paid_nano, foreign: made.paid_nano}, now.ms
        )
        own = await tx.ledger.platform("fx")
        sides = {own: -made.credited_nano, wallet.account: made.credited_nano}
        second = await tx.ledger.journal("fx", key, note, sides, now.ms)
        await tx.ledger.exchange(first, second, made, now.ms)
        return made, await tx.ledger.open_wallet(paid.tenant)

    return await books.run(work)


def _check(made: Exchanged) -> None:
    if made.currency == CURRENCY:
        raise _refused(
            "SAME_CURRENCY",
            "currency",
            f"{CURRENCY} is what the books are in.",
            "Pay it in as credit.",
        )
    if made.credited_nano <= 0:
        raise _refused(
            "AMOUNT_TOO_SMALL", "amount_nano", "That is worth nothing.", "Pay in more of it."
        )
    if made.credited_nano > MAX_NANO:
        raise _refused(
            "AMOUNT_TOO_LARGE",
            "amount_nano",
            "That is more than the books can count.",
            "Check the rate.",
        )


def _refused(reason: str, field: str, why: str, remedy: str) -> Invalid:
    return Invalid(why, reason=reason, field=field, remedy=remedy)
