"""What a chip would cost for a while, and what must be free before its first second."""

from __future__ import annotations

from dataclasses import dataclass

from gridlease_kernel.faults import Invalid
from gridlease_kernel.money import MAX_NANO, amount_nano, hold_nano

from gridlease_billing.domain.grant_row import Quote, Terms
from gridlease_billing.domain.price import Price
from gridlease_billing.domain.price import quote as price_of
from gridlease_billing.domain.priority import PriorityTable, priority_part
from gridlease_billing.ports import Books, Work


@dataclass(frozen=True, slots=True)
class Question:
    """What to price."""

    chip: str
    tier: str
    quantity_milli: int
    duration_ms: int
    notice_ms: int
    priority: int = 0
    site: str = ""


@dataclass(frozen=True, slots=True)
class Quoted:
    """The price, by its version in force. ``rate``: whole, and what of it is the priority's."""

    price: Price
    rate: Quote
    amount_nano: int
    surcharge_nano: int
    hold_nano: int

    @property
    def rate_nano_per_hour(self) -> int:
        return self.rate.rate_nano_per_hour


async def quote(books: Books, question: Question, terms: Terms) -> Quoted:
    """Prices at what is in force now.

    Raises:
        Invalid: NO_PRICE for a chip and tier that are not sold; QUANTITY_TOO_LARGE.
    """

    async def work(tx: Work) -> tuple[Price | None, PriorityTable | None]:
        now = await tx.now()
        kind = (question.chip, question.tier, question.site)
        found = (await tx.prices.in_force([kind], now.ms)).get(kind)
        return found, await tx.prices.priorities(now.ms)

    price, table = await books.run(work)
    if price is None:
        raise Invalid(
            f"No {question.tier} price of {question.chip} is in force.",
            reason="NO_PRICE",
            field="chip",
            remedy="List the prices to see what is sold.",
        )
    whole = price_of(price, question.quantity_milli, question.priority, table)
    rate, span_ns = whole.rate_nano_per_hour, question.duration_ms * 1_000_000
    amount = amount_nano(rate, span_ns)
    hold = hold_nano(rate, terms.grant_ms + question.notice_ms)
    if max(rate, amount, hold) > MAX_NANO:
        raise Invalid(
            "The amount is beyond what can be counted.",
            reason="QUANTITY_TOO_LARGE",
            field="quantity_milli",
            remedy="Ask for less, or for a shorter time.",
        )
    part = priority_part(rate, whole.surcharge_nano_per_hour, span_ns)
    return Quoted(price, whole, amount, part, hold)
