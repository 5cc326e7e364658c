"""Charges the meters beyond run time, in the commit in which their lease becomes final."""

from __future__ import annotations

from collections.abc import Sequence

from gridlease_billing.domain.grant_row import GrantRow, State
from gridlease_billing.domain.meter_price import (
    LEAST_METER,
    Entry,
    Priced,
    grown,
    month_of,
    passed_on,
    tariff_of,
)
from gridlease_billing.domain.segment import RUN_METER
from gridlease_billing.domain.supplier import split
from gridlease_billing.ports import Change, Work


async def charge_meters(tx: Work, changes: Sequence[Change], now_ms: int) -> None:
    """Writes and posts what final leases used of egress, storage and energy, if it has a price, and
    what is missing to the least that a lease costs, if there is such.

    From what the tenant prepaid, as far as that goes beyond its holds; the rest is receivable.
    """
    final = [
        it.after
        for it in changes
        if it.after.state is State.FINAL
        and it.before is not None
        and it.before.state is not State.FINAL
        and any(it.after.counters.values())
    ]
    if not final or not (entries := await tx.tariffs.entries()):
        return
    for row in sorted(final, key=lambda it: it.lease_id):
        priced = await _priced(tx, row, entries, now_ms)
        await tx.tariffs.write(priced, now_ms)
        await _post(tx, row, priced, now_ms)


async def _priced(tx: Work, row: GrantRow, entries: Sequence[Entry], now_ms: int) -> list[Priced]:
    found: list[Priced] = []
    spans = {it.number: it for it in row.segments}
    for (segment, meter), count in sorted(row.counters.items()):
        entry = tariff_of(entries, meter, row.ask.site, now_ms)
        if meter == RUN_METER or entry is None or segment not in spans or count == 0:
            continue
        month = before = 0
        if entry.pass_through:
            power = await tx.tariffs.power(row.lease_id)
            span = spans[segment]
            amount = passed_on(count, span.starts_ms, span.ends_ms, power)
        else:
            month = month_of(now_ms)
            before = await tx.tariffs.add(row.ask.tenant, entry, month, count)
            amount = grown(entry.tariff, before, count)
        found.append(
            Priced(row.lease_id, segment, meter, entry.version, count, amount, month, before)
        )
    return [*found, *_least(row, entries, now_ms)]


def _least(row: GrantRow, entries: Sequence[Entry], now_ms: int) -> list[Priced]:
    """What a lease that ran is short of the least that one costs: a line of its last segment."""
    entry = tariff_of(entries, RUN_METER, row.ask.site, now_ms)
    ran = [it.number for it in row.segments if it.frozen_ns]
    if entry is None or not ran or entry.tariff.minimum_nano <= row.charged_nano:
        return []
    count = row.counters[ran[-1], RUN_METER]
    short = entry.tariff.minimum_nano - row.charged_nano
    return [Priced(row.lease_id, ran[-1], LEAST_METER, entry.version, count, short, 0, 0)]


async def _post(tx: Work, row: GrantRow, priced: Sequence[Priced], now_ms: int) -> None:
    amount = sum(it.amount_nano for it in priced)
    if not amount:
        return
    sides = await drawn(tx, row.ask.tenant, amount)
    contract = (await tx.ledger.contracts({row.ask.contract})).get(row.ask.contract)
    revenue = await tx.ledger.platform("revenue")
    for it in priced:
        part = split(contract, it.amount_nano)
        sides[revenue] = sides.get(revenue, 0) + part.revenue_nano
        if contract is not None:
            for account, nano in (
                (contract.payable_account, part.payable_nano),
                (contract.holdback_account, part.holdback_nano),
            ):
                sides[account] = sides.get(account, 0) + nano
    await tx.ledger.journal("meter_charge", None, row.lease_id, sides, now_ms)


async def drawn(tx: Work, tenant: str, amount_nano: int) -> dict[int, int]:
    """Debits for ``amount_nano``: from what is free of the prepaid account, and receivable."""
    wallet = await tx.ledger.open_wallet(tenant)
    prepaid = min(amount_nano, max(0, wallet.available_nano))
    sides = {wallet.account: -prepaid}
    if prepaid < amount_nano:
        sides[await tx.ledger.receivable(tenant)] = prepaid - amount_nano
    return sides
