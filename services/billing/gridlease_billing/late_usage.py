"""Charges run time that was told after its lease was final: lines that correct, and a journal."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from gridlease_billing.domain import grant
from gridlease_billing.domain.grant_row import State, Terms
from gridlease_billing.domain.late import corrections, is_late, owed_nano
from gridlease_billing.domain.segment import RUN_METER
from gridlease_billing.domain.supplier import split_lines
from gridlease_billing.late_meters import charge_late_meters
from gridlease_billing.ports import Change, Work

_LOG = logging.getLogger(__name__)


async def charge_late(tx: Work, changes: Sequence[Change], now_ms: int, terms: Terms) -> None:
    """Corrects the lines of leases that were final already, in the transaction of the report:
    written down as final, or so by time when the report came.

    What is owed is receivable: the hold that it was granted against is no more.
    """
    await charge_late_meters(tx, changes, now_ms)
    late = [
        it.after
        for it in changes
        if it.before is not None
        and grant.expire(it.before, now_ms, terms).state is State.FINAL
        and is_late(it.before, it.after)
    ]
    if not late:
        return
    written = await tx.lines.written([it.lease_id for it in late])
    for row in sorted(late, key=lambda it: it.lease_id):
        found = corrections(row, written.get(row.lease_id, {}), now_ms)
        if not found:
            continue
        await tx.lines.correct(row.lease_id, found, now_ms)
        amounts = [it.amount_nano for it in found]
        least = await tx.tariffs.least(row.lease_id)
        if least is not None and (less := min(least.amount_nano, owed_nano(found))) > 0:
            count = row.counters[least.segment, RUN_METER] - least.count
            await tx.tariffs.correct([replace(least, count=count, amount_nano=-less)], now_ms)
            amounts.append(-less)
        amount = sum(amounts)
        _LOG.warning("late usage is charged", extra={"lease": row.lease_id, "nano": amount})
        if amount:
            contract = (await tx.ledger.contracts({row.ask.contract})).get(row.ask.contract)
            part = split_lines(contract, amounts)
            sides = {
                await tx.ledger.receivable(row.ask.tenant): -amount,
                await tx.ledger.platform("revenue"): part.revenue_nano,
            }
            if contract is not None:
                sides[contract.payable_account] = part.payable_nano
                sides[contract.holdback_account] = part.holdback_nano
            await tx.ledger.journal("correction", None, row.lease_id, sides, now_ms)
