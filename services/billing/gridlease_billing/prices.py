"""The price book's use cases: list, add, and the defaults of a first start."""

from __future__ import annotations

from collections.abc import Sequence

from gridlease_kernel.faults import Invalid

from gridlease_billing.credit import reused
from gridlease_billing.domain.price import NewPrice, Price, in_force
from gridlease_billing.ports import Books, Work


async def create_price(books: Books, price: NewPrice) -> Price:
    """Adds an entry, in force from its time on. Running leases pay it from their next renewal.

    Raises:
        Invalid: PRICE_IN_THE_PAST; REQUEST_ID_REUSED for another price under the same id.
    """

    async def work(tx: Work) -> Price:
        before = await tx.prices.find(price.request_id)
        if before is not None:
            if not _same(before, price):
                raise reused("another price")
            return before
        now = await tx.now()
        if price.effective_ms is not None and price.effective_ms < now.ms:
            raise Invalid(
                "A price never changes the past.",
                reason="PRICE_IN_THE_PAST",
                field="effective_time",
                remedy="Leave it unset for a price from now on, or name a time to come.",
            )
        return await tx.prices.insert(price, now.ms)

    return await books.run(work)


async def list_prices(books: Books, *, history: bool) -> list[Price]:
    """The prices in force by chip and tier, or every entry ever."""

    async def work(tx: Work) -> list[Price]:
        every = await tx.prices.history()
        if history:
            return every
        now = await tx.now()
        by_kind: dict[tuple[str, str], list[Price]] = {}
        for price in every:
            by_kind.setdefault((price.chip, price.tier), []).append(price)
        found = (in_force(prices, now.ms) for prices in by_kind.values())
        return [price for price in found if price is not None]

    return await books.run(work)


async def load_defaults(books: Books, defaults: Sequence[NewPrice]) -> int:
    """Adds the defaults of chips and tiers that have no price at all; how many. Changes none."""

    async def work(tx: Work) -> int:
        known = {(price.chip, price.tier) for price in await tx.prices.history()}
        missing = [price for price in defaults if (price.chip, price.tier) not in known]
        now = await tx.now()
        for price in missing:
            await tx.prices.insert(price, now.ms)
        return len(missing)

    return await books.run(work)


def _same(before: Price, price: NewPrice) -> bool:
    return (
        before.chip == price.chip
        and before.tier == price.tier
        and before.price_nano_per_hour == price.price_nano_per_hour
        and (price.effective_ms is None or before.effective_ms == price.effective_ms)
    )
