"""The price book's use cases: list, add, correct, and the defaults of a first start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gridlease_kernel.faults import Invalid

from gridlease_billing.credit import reused
from gridlease_billing.domain.price import NewPrice, Price
from gridlease_billing.domain.priority import NewPriorityTable, PriorityTable, wrong
from gridlease_billing.ports import Books, Work


@dataclass(frozen=True, slots=True)
class Look:
    """A place on both times of the book; None = now."""

    valid_ms: int | None = None
    recorded_ms: int | None = None


async def create_price(books: Books, price: NewPrice) -> Price:
    """Adds an entry, in force from its time on. Running leases pay it from their next renewal;
    what is charged and posted never changes, a correction of the past or not.

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
        _check_time(price, now.ms)
        return await tx.prices.insert(price, now.ms)

    return await books.run(work)


async def list_prices(books: Books, *, history: bool, look: Look = Look()) -> list[Price]:
    """The prices in force by chip, tier and site, as the book stood then; or every entry ever."""

    async def work(tx: Work) -> list[Price]:
        if history:
            return await tx.prices.history()
        return await tx.prices.as_of(*_at(look, (await tx.now()).ms))

    return await books.run(work)


async def create_priorities(books: Books, new: NewPriorityTable) -> PriorityTable:
    """Adds a version of the table of priorities; as with prices.

    Raises:
        Invalid: BAD_BANDS, PRICE_IN_THE_PAST, REQUEST_ID_REUSED.
    """
    trouble = wrong(new.bands)
    if trouble:
        raise Invalid(
            f"That is no table of priorities: {trouble}.",
            reason="BAD_BANDS",
            field="bands",
            remedy="Name bands from 0 on, each with a multiplier in thousandths.",
        )

    async def work(tx: Work) -> PriorityTable:
        before = await tx.prices.find_priorities(new.request_id)
        if before is not None:
            if before.bands != new.bands or new.effective_ms not in (None, before.effective_ms):
                raise reused("another table")
            return before
        now = await tx.now()
        _check_time(new, now.ms)
        return await tx.prices.insert_priorities(new, now.ms)

    return await books.run(work)


async def list_priorities(
    books: Books, *, history: bool, look: Look = Look()
) -> list[PriorityTable]:
    """The table of priorities in force, if there is one, or every version ever."""

    async def work(tx: Work) -> list[PriorityTable]:
        if history:
            return await tx.prices.priority_history()
        found = await tx.prices.priorities_as_of(*_at(look, (await tx.now()).ms))
        return [] if found is None else [found]

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


def _at(look: Look, now_ms: int) -> tuple[int, int]:
    valid, recorded = look.valid_ms, look.recorded_ms
    return now_ms if valid is None else valid, now_ms if recorded is None else recorded


def _check_time(new: NewPrice | NewPriorityTable, now_ms: int) -> None:
    if new.effective_ms is not None and new.effective_ms < now_ms and not new.correction:
        raise Invalid(
            "A price never changes the past.",
            reason="PRICE_IN_THE_PAST",
            field="effective_time",
            remedy="Leave it unset for a price from now on, name a time to come, or say that it"
            " is a correction: that changes what the book says, and nothing that was charged.",
        )


def _same(before: Price, price: NewPrice) -> bool:
    return (
        before.kind == (price.chip, price.tier, price.site)
        and before.price_nano_per_hour == price.price_nano_per_hour
        and before.withdrawn == price.withdrawn
        and (price.effective_ms is None or before.effective_ms == price.effective_ms)
    )
