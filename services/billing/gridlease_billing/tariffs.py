"""The book of prices beyond run time: list, and add. Insert only, never in the past."""

from __future__ import annotations

from gridlease_kernel.faults import Invalid

from gridlease_billing.contract_ports import NewTariff
from gridlease_billing.credit import reused
from gridlease_billing.domain.meter_price import Entry
from gridlease_billing.domain.segment import RUN_METER
from gridlease_billing.ports import Books, Work


async def create_tariff(books: Books, new: NewTariff) -> Entry:
    """Adds an entry; leases pay what is in force as they become final.

    Raises:
        Invalid: PRICE_IN_THE_PAST; PROVISION_IS_FREE; RUN_IS_PRICED; REQUEST_ID_REUSED.
    """
    if new.meter == RUN_METER and any(it.price_nano for it in new.tariff.steps):
        raise Invalid(
            "Run time is priced by the price book; a tariff names the least that a lease costs.",
            reason="RUN_IS_PRICED",
            field="tariff.steps",
            remedy="Give 0 as its price, and a minimum.",
        )
    if new.meter == "provision" and any(it.price_nano for it in new.tariff.steps):
        raise Invalid(
            "Time before a task is ready costs nothing, always.",
            reason="PROVISION_IS_FREE",
            field="tariff.meter",
            remedy="Price what runs.",
        )

    async def work(tx: Work) -> Entry:
        before = await tx.tariffs.find(new.request_id)
        if before is not None:
            if not _same(before, new):
                raise reused("another price")
            return before
        now = await tx.now()
        if new.effective_ms is not None and new.effective_ms < now.ms:
            raise Invalid(
                "A price never changes the past.",
                reason="PRICE_IN_THE_PAST",
                field="tariff.effective_time",
                remedy="Leave it unset for a price from now on, or name a time to come.",
            )
        await tx.tariffs.insert(new, now.ms)
        written = await tx.tariffs.find(new.request_id)
        assert written is not None, new
        return written

    return await books.run(work)


async def list_tariffs(books: Books) -> list[Entry]:
    """Every entry ever, by version."""

    async def work(tx: Work) -> list[Entry]:
        return await tx.tariffs.entries()

    return await books.run(work)


def _same(before: Entry, new: NewTariff) -> bool:
    told = (before.meter, before.site, before.tariff, before.pass_through)
    return told == (new.meter, new.site, new.tariff, new.pass_through) and (
        new.effective_ms is None or before.effective_ms == new.effective_ms
    )
