"""Egress, storage and energy in memory: their tariffs as PostgreSQL has them, and what is due.

Sums are computed here by other code than billing's.
"""

from __future__ import annotations

import datetime
import random
from collections import defaultdict

from gridlease_billing.contract_ports import Told
from gridlease_billing.domain.meter_price import Entry
from gridlease_billing.domain.rating import Step, Tariff

from tests.sim.money.broken import insist

_PER = {"egress": 2**30, "storage": 2**30 * 3_600, "energy": 3_600_000_000}
_LONGEST_MS = 3_600_000  # until a world's last change of a tariff
_CHARGES = ("meter_charge", "correction")
_PAYEES = ("revenue", "supplier_payable", "supplier_holdback")


def tariffs(seed, now_ms):
    """A world's: some from its beginning on, changes to come, and sites' own."""
    r = random.Random(f"{seed}:tariffs")
    found = []
    for meter, per in _PER.items():
        for n in range(r.randrange(1, 5)):
            site = "" if n == 0 else r.choice(["", "", "sites/a", "sites/b"])
            begins_ms = now_ms + (0 if n == 0 else r.randrange(_LONGEST_MS))
            steps, above = [Step(0, r.choice([0, r.randrange(10**9)]))], 0
            for _ in range(r.randrange(3)):
                above += r.randrange(1, 10 ** r.randrange(7, 11))
                steps.append(Step(above, r.randrange(10 ** r.randrange(6, 10))))
            passed_on = meter == "energy" and r.random() < 0.3
            least = 0 if passed_on else r.choice([0, 0, r.randrange(10**7)])
            tariff = Tariff(tuple(steps), per, least)
            number = len(found) + 1
            found.append(Entry(number, meter, site, tariff, passed_on, begins_ms, now_ms))
    return found


class TariffRows:
    """The store of tariffs, totals and what meters cost."""

    def __init__(self, tx):
        self._tx, self._t = tx, tx.tables

    async def entries(self):
        self._tx.step()
        return self._t.tariffs

    async def least(self, lease):
        return None

    async def power(self, lease):
        self._tx.step()
        return self._t.leases[lease].row.ask.power

    async def add(self, tenant, entry, month, count):
        self._tx.step()
        key = (tenant, entry.version, month)
        before = self._t.totals.get(key, 0)
        self._tx.undo.append((self._set, (key, before)))
        self._t.totals[key] = before + count
        return before

    def _set(self, pair):
        self._t.totals[pair[0]] = pair[1]

    async def write(self, priced, now_ms):
        self._write(priced, lambda _: now_ms, first=True)

    async def told(self, lease):
        self._tx.step()
        lease = self._t.leases[lease]
        found = {(it.segment, "run"): Told(0, 0, lease.ended_ms) for it in lease.lines}
        for it, ended_ms, _ in lease.priced:
            key = (it.segment, it.meter)
            charged = found[key].charged if key in found else 0
            found[key] = Told(charged + it.count, it.version, ended_ms)
        return found

    async def correct(self, priced, now_ms):
        self._write(priced, lambda it: self._t.leases[it.lease].ended_ms, first=False)

    def _write(self, priced, ended, *, first):
        self._tx.step()
        for it in priced:
            lease = self._t.leases[it.lease]
            self._tx.save(lease)
            lease.priced += ((it, ended(it), first),)


def insist_on_lease(lease, row, counted):
    """Of a final lease: all that was counted is charged, late or not. ``counted``: the oracle's."""
    charged = defaultdict(int)
    for it, _, _ in lease.priced:
        charged[it.segment, it.meter] += it.count
    for key, count in counted.items():
        if key[1] in _PER:
            insist(charged[key] == count, "a meter is not charged", key, charged[key], count, row)


def cost(tariff, total):
    """Of a month's total, step by step."""
    whole = 0
    for n, step in enumerate(tariff.steps):
        end = tariff.steps[n + 1].above if n + 1 < len(tariff.steps) else total
        whole += max(0, min(total, end) - step.above) * step.price_nano
    return max(tariff.minimum_nano, whole // tariff.per) if total else 0


def insist_on_books(tables):
    """Months cost what their totals cost; what tenants paid is what platform and suppliers got."""
    totals, amounts, owed, parts = (defaultdict(int) for _ in range(4))
    for lease in tables.leases.values():
        for it, ended_ms, _ in lease.priced:
            if not tables.tariffs[it.version - 1].pass_through:
                at = datetime.datetime.fromtimestamp(ended_ms / 1_000, datetime.UTC)
                key = (lease.row.ask.tenant, it.version, at.year * 12 + at.month - 1)
                totals[key] += it.count
                amounts[key] += it.amount_nano
        told = [it.amount_nano for it, _, _ in lease.priced]
        told += [it.amount_nano for it in lease.corrections]
        owed[lease.row.ask.tenant] += sum(told)
        contract = tables.contracts.get(lease.row.ask.contract)
        for nano in told if contract else ():
            part = abs(nano) * contract.share_permyriad // 10_000
            back = part * contract.holdback_permyriad // 10_000
            sign = -1 if nano < 0 else 1
            parts[contract.payable_account] += sign * (part - back)
            parts[contract.holdback_account] += sign * back
    insist(totals == {key: n for key, n in tables.totals.items() if n}, "a month's total", totals)
    for key, total in totals.items():
        due = cost(tables.tariffs[key[1] - 1].tariff, total)
        insist(amounts[key] == due, "a month does not cost what its total costs", key, total, due)
    sums = defaultdict(int)
    for journal, account, amount in tables.entries:
        if tables.journals[journal][0] in _CHARGES:
            sums[account] += amount
    of = tables.accounts
    for tenant, nano in owed.items():
        paid = sums[of.get(("tenant_prepaid", tenant))] + sums[of.get(("receivable", tenant))]
        insist(paid == -nano, "meters and late usage are not posted", tenant, paid, nano)
    for account, nano in parts.items():
        insist(sums[account] == nano, "an owner's part of meters", account, sums[account], nano)
    got = sum(sums[account] for (kind, _), account in of.items() if kind in _PAYEES)
    insist(got == sum(owed.values()), "meters' charges are not what was got", got)
