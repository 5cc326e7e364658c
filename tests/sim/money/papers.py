"""Invoices and credit notes in memory: their tables, who asks for them, and what they must say."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import replace

from gridlease_billing.credit_note import Refund, create_credit_note
from gridlease_billing.domain.grant_row import State
from gridlease_billing.domain.invoice import CREDIT_NOTE, DRAFT, INVOICE
from gridlease_billing.domain.issuer import LegalEntity, LineSplit, TaxProfile, TaxSource
from gridlease_billing.domain.tax import TaxRate
from gridlease_billing.domain.usage import Line
from gridlease_billing.invoice import create_invoice, finalize_invoice
from gridlease_billing.ports import Scope
from gridlease_kernel.ids import CountingIds

from tests.sim.money.broken import insist

_PROJECT = "projects/p"
_CENT = 10_000_000
_PAUSE_MS = 60_000
_AWAITS = 40  # of a use case here, at which it may crash
_PROFILES = (("", ""), ("DE", ""), ("FR", "FR1"), ("US", ""))
_CREDITS = ("reclaim_credit", "sla_credit")


class InvoiceRows:
    def __init__(self, tx):
        self._tx, self._t = tx, tx.tables

    def _put(self, table, key, value):
        """Writes a row, so that it can be taken back."""
        before = table.get(key)
        self._tx.undo.append((self._back, (table, key, before)))
        table[key] = value

    def _back(self, what):
        table, key, before = what
        if before is None:
            table.pop(key, None)
        else:
            table[key] = before

    async def next_count(self, entity, kind, year):
        self._tx.step()
        key = (entity, kind, year)
        self._put(self._t.counts, key, self._t.counts.get(key, 0) + 1)
        return self._t.counts[key]

    async def find(self, tenant, request_id):
        self._tx.step()
        return self._t.invoices.get(self._t.asked.get((tenant, request_id)))

    async def get(self, tenant, name, *, lock=False):
        self._tx.step()
        found = self._t.invoices.get(name)
        return found if found is not None and found.head.tenant == tenant else None

    async def insert(self, invoice, request_id):
        self._tx.step()
        head = invoice.head
        insist((head.tenant, request_id) not in self._t.asked, "asked for twice", head)
        self._put(self._t.asked, (head.tenant, request_id), head.name)
        self._put(self._t.invoices, head.name, invoice)
        for at, line in enumerate(invoice.lines, start=1):
            insist(line.source not in self._t.sources, "billed twice", line)
            self._put(self._t.sources, line.source, f"{head.name}#{at}")
            if line.kind == "USAGE":
                self._put(self._t.billed, line.lease, head.name)

    async def finalize(self, invoice):
        self._tx.step()
        before = self._t.invoices[invoice.head.name]
        same = (before.head.state, before.lines) == (DRAFT, invoice.lines)
        insist(same, "a final invoice is edited", before.head)
        self._put(self._t.invoices, invoice.head.name, invoice)

    async def split(self, invoice):
        self._tx.step()
        if invoice.head.name not in self._t.splits:
            found = zip(invoice.billed, invoice.taxes, strict=True)
            rows = {at: LineSplit(*it) for at, it in enumerate(found, start=1)}
            self._put(self._t.splits, invoice.head.name, rows)

    async def lock_splits(self, name):
        self._tx.step()
        return self._t.splits[name]

    async def give_back(self, name, taken):
        self._tx.step()
        rows = dict(self._t.splits[name])
        for at, (net, tax) in taken.items():
            it = rows[at]
            rows[at] = it = replace(it, net_credited_nano=it.net_credited_nano + net,
                                    tax_credited_nano=it.tax_credited_nano + tax)  # fmt: skip
            insist(0 <= it.net_credited_nano <= max(0, it.net_nano)
                   and 0 <= it.tax_credited_nano <= max(0, it.tax_nano),
                   "more is given back than its line", name, at, it)  # fmt: skip
        self._put(self._t.splits, name, rows)


class TaxRows:
    """One issuer and one table; tenants of four kinds."""

    def __init__(self, tx):
        self._tx = tx

    async def entity(self, name):
        self._tx.step()
        return LegalEntity(name, "Sim", "Weg 1", "DE", "DE1", "GL")

    async def profile(self, tenant):
        self._tx.step()
        country, number = _PROFILES[int(tenant[-1]) % len(_PROFILES)]
        return TaxProfile(tenant, "A tenant", "Way 2", country, number)

    async def rates(self):
        self._tx.step()
        return [TaxSource(TaxRate("DE", "VAT", 1_900, 0), "sim")]


class Owners:
    """Whose a lease's node is."""

    def __init__(self, tx):
        self._tx, self._t = tx, tx.tables

    async def of_leases(self, leases):
        self._tx.step()
        found = {it: self._t.contracts.get(self._t.leases[it].row.ask.contract) for it in leases}
        return {lease: it for lease, it in found.items() if it is not None}


class Nothing:
    """What these worlds do not have: footprints to tell, tenants who are late."""

    def __init__(self, tx):
        self._tx = tx

    async def told(self, _leases):
        self._tx.step()
        return []

    async def drew_of(self, _leases):
        self._tx.step()
        return []

    async def overdue(self, _tenants, _now_ms):
        self._tx.step()
        return {}

    async def take_off(self, _invoice, nano):
        self._tx.step()
        return nano


def usage(lease):
    """What a final lease used, as an invoice has it."""
    row = lease.row
    spans = {it.number: it for it in row.segments}
    for it in lease.lines:
        yield _placed(it, row, spans[it.segment], "run/usage")
    for at, (it, _, first) in enumerate(lease.priced):
        if first:
            yield _line(lease, it.segment, it.meter, it.count, it.amount_nano, "USAGE", at)


def late(lease):
    """What was told of it too late."""
    for at, it in enumerate(lease.corrections):
        yield _line(lease, it.segment, "run", it.charged_ns, it.amount_nano, "CORRECTION", at)
    for at, (it, _, first) in enumerate(lease.priced):
        if not first:
            yield _line(lease, it.segment, it.meter, it.count, it.amount_nano, "CORRECTION", at)


def _line(lease, segment, meter, count, amount_nano, kind, at):
    row = lease.row
    ask, span = row.ask, next(it for it in row.segments if it.number == segment)
    line = Line(row.lease_id, ask.job, ask.node, segment, meter, ask.chip, ask.tier,
                ask.quantity_milli, 0, 0, count, count, count, amount_nano, lease.opened_ms,
                kind=kind)  # fmt: skip
    return _placed(line, row, span, f"{meter}/{kind}/{at}")


def _placed(line, row, span, tail):
    source = f"line/{row.lease_id}/{line.segment}/{tail}"
    return replace(line, site=row.ask.site, starts_ms=span.starts_ms, ends_ms=span.ends_ms,
                   source=source)  # fmt: skip


def credits_of(tables, tenant):
    """Warnings not given and nodes lost: their journals, oldest first."""
    account = tables.accounts.get(("tenant_prepaid", tenant))
    wanted = {at: it for at, it in enumerate(tables.journals) if it[0] in _CREDITS}
    for journal, of, amount in tables.entries if wanted else ():
        if of == account and journal in wanted:
            kind, _, name = wanted[journal]
            lease = tables.leases[name]
            ask = lease.row.ask
            yield Line(name, ask.job, ask.node, 0, "run", ask.chip, ask.tier, ask.quantity_milli,
                       0, 0, 0, 0, 0, -amount, lease.opened_ms, kind="CREDIT", note=kind,
                       source=f"journal/{journal}")  # fmt: skip


def billable(tables, scope):
    """Final leases of a project or job that no invoice has, and that cost something."""
    for name, lease in tables.leases.items():
        row = lease.row
        if (
            row.state is State.FINAL
            and name not in tables.billed
            and _within(row.ask, scope)
            and (lease.charged_ns or any(it.amount_nano for it, _, first in lease.priced if first))
        ):
            yield name


def _within(ask, scope):
    return ask.tenant == scope.tenant and scope.job in ("", ask.job)


def unbilled(tables, scope, rows):
    """Of what ``rows`` makes of leases: what no invoice has."""
    found = []
    for lease in tables.leases.values():
        if lease.row.state is State.FINAL and _within(lease.row.ask, scope):
            found += [it for it in rows(lease) if it.source not in tables.sources]
    return found


class Papers:
    """A tenant's or an operator's turns; some requests twice."""

    def __init__(self, town):
        self.town, self.random = town, random.Random(f"{town.seed}:papers")
        self.ids = CountingIds()
        self.number = 0

    async def turn(self):
        town, r = self.town, self.random
        if town.quiet:
            return
        town.after(r.randrange(1_000, _PAUSE_MS), self.turn)
        self.number += 1
        key, tenant = f"d{self.number}", r.choice(town.tenants)
        known = [it for it in town.books.tables.invoices.values() if it.head.kind == INVOICE]
        act = r.choice([self._bill, self._refund, self._refund, self._finalize])
        kind, work = act(key, tenant, r.choice(known) if known else None)
        reach, town.books.reach = town.books.reach, _AWAITS
        first = await town.call(kind, work())
        for _ in range(r.choice([0, 0, 1])):
            again = await town.call(kind, work())
            same = first is None or again is None or first.lines == again.lines
            insist(same, "another answer", key, first, again)
        town.books.reach = reach

    def _bill(self, key, tenant, _):
        draft, r = self.random.random() < 0.3, self.random
        jobs = [it.job for it in list(self.town.asks.values())[-30:] if it.tenant == tenant]
        scope = Scope(tenant, _PROJECT, r.choice(jobs) if jobs and r.random() < 0.2 else "")
        return "invoice", lambda: create_invoice(
            self.town.books, self.ids, scope, key, draft=draft)  # fmt: skip

    def _finalize(self, key, tenant, invoice):
        if invoice is None:
            return self._bill(key, tenant, None)
        head = invoice.head
        return "finalize", lambda: finalize_invoice(self.town.books, head.tenant, head.name)

    def _refund(self, key, tenant, invoice):
        if invoice is None:
            return self._bill(key, tenant, None)
        r, at = self.random, self.random.randrange(len(invoice.lines))
        whole = max(0, invoice.billed[at]) + max(0, invoice.taxes[at])
        amount = r.choice([0, whole, whole + _CENT, r.randrange(1, 50) * _CENT])
        position = 0 if not amount and r.random() < 0.3 else at + 1
        told = Refund(invoice.head.tenant, invoice.head.name, "sim", key, position, amount)

        async def work():
            note = await create_credit_note(self.town.books, self.ids, told)
            insist(amount <= whole, "gave back more than a line", told)
            insist(not amount or note.payable_nano == -amount, "gave back another amount", told)
            return note

        return "refund", work


def insist_on_papers(tables):
    """Documents are their lines, notes within them, numbers without a gap, postings as they say."""
    given, posted, numbers = defaultdict(int), defaultdict(int), defaultdict(list)
    for invoice in tables.invoices.values():
        head = invoice.head
        total = sum(it.amount_nano for it in invoice.lines)
        insist(total == invoice.total_nano, "a total is not its lines", head)
        insist(sum(invoice.billed) == invoice.net_nano, "lines ask for something else", head)
        insist(sum(invoice.taxes) == invoice.tax_nano, "lines bear another tax", head)
        insist(2 * abs(invoice.net_nano - total) <= _CENT > invoice.net_nano % _CENT == 0,
               "not rounded to the cent", head, total)  # fmt: skip
        if head.state == DRAFT:
            continue
        numbers[head.kind].append(int(head.number.rpartition("-")[2]))
        posted["tax_payable"] += invoice.tax_nano
        if head.kind == INVOICE:
            off = invoice.tax_nano * 10_000 - invoice.net_nano * invoice.parties.tax.permyriad
            insist(2 * abs(off) <= _CENT * 10_000, "another tax", head)
            posted["rounding"] += invoice.net_nano - total
            continue
        for line in invoice.lines:
            given[line.cites] -= line.amount_nano + line.tax_nano
    for kind, counts in numbers.items():
        insist(sorted(counts) == list(range(1, len(counts) + 1)), "numbers have a gap", kind)
    for name, rows in tables.splits.items():
        for at, it in rows.items():
            back = it.net_credited_nano + it.tax_credited_nano
            insist(back == given[f"{name}#{at}"], "notes are not what their line gave back", name)
            insist(back <= max(0, it.net_nano) + max(0, it.tax_nano), "more than its line", name)
    sums = defaultdict(int)
    for journal, account, amount in tables.entries:
        if tables.journals[journal][0] in ("invoice", "credit_note"):
            sums[account] += amount
    for kind, nano in posted.items():
        found = sums[tables.accounts.get((kind, ""))]
        insist(found == nano, "documents are not posted", kind, found, nano)
    notes = sum(it.payable_nano for it in tables.invoices.values() if it.head.kind == CREDIT_NOTE)
    asked = sum(it.payable_nano - it.total_nano for it in tables.invoices.values()
                if (it.head.kind, it.head.state == DRAFT) == (INVOICE, False))  # fmt: skip
    tenants = sum(sums[account] for (kind, _), account in tables.accounts.items()
                  if kind in ("tenant_prepaid", "receivable"))  # fmt: skip
    insist(tenants == -notes - asked, "tenants are not asked for what documents say", tenants)
