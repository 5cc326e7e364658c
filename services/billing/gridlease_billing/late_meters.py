"""Charges egress, storage and energy that were told only after their lease was final."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from gridlease_billing.contract_ports import Told
from gridlease_billing.domain.grant_row import GrantRow, State
from gridlease_billing.domain.late import LONGEST_LATE_MS
from gridlease_billing.domain.meter_price import (
    Entry,
    Priced,
    grown,
    month_of,
    passed_on,
    tariff_of,
)
from gridlease_billing.domain.segment import RUN_METER
from gridlease_billing.domain.supplier import split_lines
from gridlease_billing.ports import Change, Work

_LOG = logging.getLogger(__name__)


async def charge_late_meters(tx: Work, changes: Sequence[Change], now_ms: int) -> None:
    """Corrects the lines of leases that were final before: in sum, what would have been charged
    had nothing been late, by the tariff and the month of the lease's end.

    What is owed is receivable: the hold that it was granted against is no more.
    """
    late = [
        it.after
        for it in changes
        if it.before is not None
        and it.before.state is State.FINAL
        and now_ms <= it.after.ends_at_ms + LONGEST_LATE_MS
        and _others(it.after) != _others(it.before)
    ]
    if not late or not (entries := await tx.tariffs.entries()):
        return
    for row in sorted(late, key=lambda it: it.lease_id):
        priced = await _priced(tx, row, entries)
        if not priced:
            continue
        await tx.tariffs.correct(priced, now_ms)
        amounts = [it.amount_nano for it in priced]
        _LOG.warning("late usage is charged", extra={"lease": row.lease_id, "nano": sum(amounts)})
        if any(amounts):
            contract = (await tx.ledger.contracts({row.ask.contract})).get(row.ask.contract)
            part = split_lines(contract, amounts)
            sides = {
                await tx.ledger.receivable(row.ask.tenant): -sum(amounts),
                await tx.ledger.platform("revenue"): part.revenue_nano,
            }
            if contract is not None:
                sides[contract.payable_account] = part.payable_nano
                sides[contract.holdback_account] = part.holdback_nano
            await tx.ledger.journal("correction", None, row.lease_id, sides, now_ms)


def _others(row: GrantRow) -> Mapping[tuple[int, str], int]:
    return {key: count for key, count in row.counters.items() if key[1] != RUN_METER}


async def _priced(tx: Work, row: GrantRow, entries: Sequence[Entry]) -> list[Priced]:
    told = await tx.tariffs.told(row.lease_id)
    versions = {it.version: it for it in entries}
    found: list[Priced] = []
    for (segment, meter), count in sorted(_others(row).items()):
        ended = told.get((segment, RUN_METER))
        if ended is None:
            continue
        known = told.get((segment, meter), Told(0, 0, ended.recorded_ms))
        entry = versions.get(known.version) or tariff_of(
            entries, meter, row.ask.site, ended.recorded_ms
        )
        more = count - known.charged
        if entry is None or more <= 0:
            continue
        month = before = 0
        if entry.pass_through:
            power = await tx.tariffs.power(row.lease_id)
            span = next(it for it in row.segments if it.number == segment)
            times = (span.starts_ms, span.ends_ms)
            amount = passed_on(count, *times, power) - passed_on(known.charged, *times, power)
        else:
            month = month_of(known.recorded_ms)
            before = await tx.tariffs.add(row.ask.tenant, entry, month, more)
            amount = grown(entry.tariff, before, more)
        found.append(
            Priced(row.lease_id, segment, meter, entry.version, more, amount, month, before)
        )
    return found
