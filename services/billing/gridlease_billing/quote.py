"""What a chip would cost for a while, and what must be free before its first second."""

from __future__ import annotations

from dataclasses import dataclass

from gridlease_kernel.faults import Invalid
from gridlease_kernel.money import MAX_NANO, amount_nano, hold_nano, rate_nano_per_hour

from gridlease_billing.domain.grant_row import Terms
from gridlease_billing.domain.price import Price
from gridlease_billing.ports import Books, Work


@dataclass(frozen=True, slots=True)
class Question:
    """What to price."""

    chip: str
    tier: str
    quantity_milli: int
    duration_ms: int
    notice_ms: int


@dataclass(frozen=True, slots=True)
class Quoted:
    """The price, by its version in force."""

    price: Price
    rate_nano_per_hour: int
    amount_nano: int
    hold_nano: int


async def quote(books: Books, question: Question, terms: Terms) -> Quoted:
    """Prices at what is in force now.

    Raises:
        Invalid: NO_PRICE for a chip and tier that are not sold; QUANTITY_TOO_LARGE.
    """

    async def work(tx: Work) -> Price | None:
        now = await tx.now()
        kind = (question.chip, question.tier)
        return (await tx.prices.in_force([kind], now.ms)).get(kind)

    price = await books.run(work)
    if price is None:
        raise Invalid(
            f"No {question.tier} price of {question.chip} is in force.",
            reason="NO_PRICE",
            field="chip",
            remedy="List the prices to see what is sold.",
        )
    rate = rate_nano_per_hour(price.price_nano_per_hour, question.quantity_milli)
    amount = amount_nano(rate, question.duration_ms * 1_000_000)
    hold = hold_nano(rate, terms.grant_ms + question.notice_ms)
    if max(rate, amount, hold) > MAX_NANO:
        raise Invalid(
            "The amount is beyond what can be counted.",
            reason="QUANTITY_TOO_LARGE",
            field="quantity_milli",
            remedy="Ask for less, or for a shorter time.",
        )
    return Quoted(price, rate, amount, hold)
