"""What the books of a world must say: each account explained by documents, each document by lines.

Shares, tiers and sums are computed here by other code than billing's.
"""

from __future__ import annotations

import datetime
import json
from collections import defaultdict

from gridlease_billing.suppliers import statement
from gridlease_kernel.faults import Missing

from tests.sim.money.broken import insist
from tests.sim.money.oracle import dues

_CENT = 10_000_000
_HOUR_MS = 3_600_000
_OF_TENANTS = ("tenant_prepaid", "receivable")
_LINES = """
SELECT n.*, l.contract, l.power FROM line AS n JOIN lease AS l ON l.id = n.lease
"""
_CREDITS = """
SELECT j.id, j.kind, j.cause, k.idem_key, e.amount, a.tenant FROM journal AS j
JOIN journal_key AS k ON k.journal = j.id
JOIN entry AS e ON e.journal = j.id JOIN account AS a ON a.id = e.account
WHERE a.kind = 'tenant_prepaid'
    AND j.kind IN ('reclaim_credit', 'sla_credit', 'promo_credit', 'credit')
"""
# Each of them finds nothing.
WRONG = {
    "a currency does not sum to zero":
        "SELECT a.currency FROM entry AS e JOIN account AS a ON a.id = e.account"
        " GROUP BY a.currency HAVING sum(e.amount) <> 0",
    "a journal mixes currencies":
        "SELECT e.journal FROM entry AS e JOIN account AS a ON a.id = e.account"
        " GROUP BY e.journal HAVING count(DISTINCT a.currency) > 1",
    "a balance is not its entries":
        "SELECT account FROM balance AS b WHERE posted <> (SELECT coalesce(sum(amount), 0)"
        " FROM entry AS e WHERE e.account = b.account)",
    "a tenant is below its limit":
        "SELECT account FROM balance WHERE posted - held < -credit_limit OR held < 0",
    "a charge is not what revenue and suppliers got":
        "SELECT j.id FROM journal AS j JOIN entry AS e ON e.journal = j.id"
        " JOIN account AS a ON a.id = e.account"
        " WHERE j.kind IN ('charge', 'meter_charge', 'correction') GROUP BY j.id"
        " HAVING bool_or(a.kind NOT IN ('tenant_prepaid', 'receivable', 'revenue',"
        " 'supplier_payable', 'supplier_holdback'))",
    "a line asks for more than a cent off its amount":
        # What takes off a line asks with it.
        "SELECT s.invoice, b.position FROM line_split AS s JOIN invoice_line AS i"
        " ON i.invoice = s.invoice AND i.position = s.position JOIN invoice_line AS b"
        " ON b.invoice = s.invoice AND b.source = CASE WHEN (i.line->>'amount_nano')::int8 < 0"
        " AND EXISTS (SELECT FROM invoice_line AS o WHERE o.invoice = i.invoice"
        " AND o.source = regexp_replace(i.source, '/[^/]*$', ''))"
        " THEN regexp_replace(i.source, '/[^/]*$', '') ELSE i.source END"
        " GROUP BY s.invoice, b.position HAVING"
        " abs(sum(s.net_nano) - sum((i.line->>'amount_nano')::int8)) >= count(*) * 10000000",
    "lines do not ask for what their invoice asks for":
        "SELECT i.id FROM invoice AS i JOIN line_split AS s ON s.invoice = i.id"
        " WHERE i.state = 'FINAL' AND i.kind = 'INVOICE' GROUP BY i.id HAVING"
        " sum(s.net_nano) <> i.net_nano OR sum(s.tax_nano) <> i.tax_nano",
    "an invoice is not the sum of its lines":
        "SELECT i.id FROM invoice AS i JOIN invoice_line AS n ON n.invoice = i.id"
        " GROUP BY i.id HAVING sum((n.line->>'amount_nano')::int8) <> i.total_nano",
    "notes are not what their lines gave back":
        "SELECT s.invoice, s.position FROM line_split AS s LEFT JOIN (SELECT n.line->>'cites' AS"
        " cites, sum((n.line->>'amount_nano')::int8) AS net, sum((n.line->>'tax_nano')::int8) AS"
        " tax FROM invoice_line AS n JOIN invoice AS i ON i.id = n.invoice"
        " WHERE i.kind = 'CREDIT_NOTE' GROUP BY 1) AS g"
        " ON g.cites = concat(s.invoice, '#', s.position)"
        " WHERE s.net_credited_nano <> -coalesce(g.net, 0)"
        " OR s.tax_credited_nano <> -coalesce(g.tax, 0)",
    "a line gave back more than it asked for":
        "SELECT invoice, position FROM line_split WHERE net_credited_nano > greatest(0, net_nano)"
        " OR tax_credited_nano > greatest(0, tax_nano)",
    "a line of a billed lease is not what its invoice says":  # its minimum may stand by itself
        "SELECT n.lease FROM line AS n JOIN lease AS l ON l.id = n.lease"
        " WHERE l.invoice IS NOT NULL AND n.class = 'usage' AND n.amount_nano <> coalesce(("
        "SELECT sum((i.line->>'amount_nano')::int8) FROM invoice_line AS i"
        " WHERE i.lease = n.lease AND i.segment = n.segment AND starts_with(concat(i.source, '/'),"
        " concat('line/', n.lease, '/', n.segment, '/', n.meter, '/usage/'))), 0)",
    "hours of a pot are not one after another":
        "SELECT c.id FROM commitment AS c JOIN commitment_hour AS h ON h.commitment = c.id"
        " GROUP BY c.id HAVING max(h.hour_ms) - min(h.hour_ms) <> (count(*) - 1) * 3600000"
        " OR min(h.hour_ms) <> c.starts_ms OR max(h.hour_ms) >= c.ends_ms",
    "a pot's hour is not what was drawn":
        "SELECT h.commitment FROM commitment_hour AS h LEFT JOIN (SELECT commitment, hour_ms,"
        " sum(milli_ns) AS used, sum(cover_nano) AS cover FROM commitment_draw GROUP BY 1, 2) AS d"
        " USING (commitment, hour_ms) JOIN commitment AS c ON c.id = h.commitment"
        " WHERE h.used_milli_ns <> coalesce(d.used, 0) OR h.cover_nano <> coalesce(d.cover, 0)"
        " OR h.fee_nano <> c.rate_nano_per_hour"
        " OR h.size_milli_ns <> c.quantity_milli * 3600000000000",
    "pots cover more than ran":
        "SELECT d.lease, d.segment, sum(d.milli_ns) AS drawn, sum(d.cover_nano) AS cover,"
        " min(m.run) AS run, min(l.quantity_milli) AS milli, min(s.rate_nano_per_hour) AS rate"
        " FROM commitment_draw AS d JOIN lease AS l ON l.id = d.lease"
        " JOIN segment AS s ON s.lease = d.lease AND s.number = d.segment"
        " JOIN meter AS m ON m.lease = d.lease AND m.segment = d.segment"
        " GROUP BY d.lease, d.segment HAVING sum(d.milli_ns) > min(m.run * l.quantity_milli)"
        " OR sum(d.cover_nano) <> floor(floor(sum(d.milli_ns) / min(l.quantity_milli))"
        " * min(s.rate_nano_per_hour - greatest(s.surcharge_nano_per_hour, 0)) / 3600000000000)",
    "months' totals are not their lines":
        "SELECT t.tenant FROM meter_total AS t WHERE t.quantity <> (SELECT coalesce(sum(n.charged)"
        ", 0) FROM line AS n WHERE n.tenant = t.tenant AND n.meter = t.meter"
        " AND n.price_version = t.tariff AND t.month = to_char(to_timestamp("
        "coalesce(n.cites_ms, n.recorded_ms) / 1000.0) AT TIME ZONE 'UTC', 'YYYY')::int * 12"
        " + to_char(to_timestamp(coalesce(n.cites_ms, n.recorded_ms) / 1000.0)"
        " AT TIME ZONE 'UTC', 'MM')::int - 1)",
    "an exchange is not its rate":
        "SELECT x.to_journal FROM exchange AS x JOIN entry AS f ON f.journal = x.from_journal"
        " AND f.amount > 0 JOIN entry AS t ON t.journal = x.to_journal AND t.amount > 0"
        " WHERE t.amount <> div(f.amount::numeric * x.rate_numerator, x.rate_denominator)",
    "an invoice is not paid by its payments":
        "SELECT r.invoice FROM receivable AS r WHERE paid_nano <> (SELECT"
        " coalesce(sum(applied_nano), 0) FROM payment AS p"
        " WHERE p.invoice = r.invoice) OR paid_nano < 0"
        " OR paid_nano + credited_nano > asked_nano",
    "a payment was taken back further than it was paid":
        "SELECT p.tenant FROM payment AS p JOIN payment AS b ON b.tenant = p.tenant"
        " AND b.refunds = p.request_id GROUP BY p.tenant, p.request_id"
        " HAVING min(p.amount_nano) + sum(b.amount_nano) < 0",
    "notices have a gap":
        "SELECT count(*) FROM notice HAVING count(*) <> coalesce(max(sequence), 0)",
}  # fmt: skip


def share(amount, contract):
    """(payable, holdback) of a line."""
    if contract is None:
        return 0, 0
    part = abs(amount) * contract["share_permyriad"] // 10_000
    back = part * contract["holdback_permyriad"] // 10_000
    sign = -1 if amount < 0 else 1
    return sign * (part - back), sign * back


def cost(tariff, total):
    """Of a month's total, step by step."""
    edges = [*tariff["above"][1:], None]
    whole = 0
    for low, high, price in zip(tariff["above"], edges, tariff["price_nano"], strict=True):
        whole += max(0, min(total, total if high is None else high) - low) * price
    return max(tariff["minimum_nano"], whole // tariff["per"]) if total else 0


class Auditor:
    """``run``: the world's, between two of its moments."""

    def __init__(self, run):
        self.run = run

    async def look(self):
        """All of it."""
        admin = self.run.place.admin
        for what, query in WRONG.items():
            found = await admin.fetch(query)
            insist(not found, what, [dict(it) for it in found[:3]])
        self.contracts = {
            it["id"]: it for it in await admin.fetch("SELECT * FROM supplier_contract")
        }
        self.leases = {it["id"]: it for it in await admin.fetch(
            "SELECT id, tenant, contract, state, invoice, notice_ms FROM lease")}  # fmt: skip
        self.lines = await admin.fetch(_LINES)
        self.invoices = await admin.fetch("SELECT * FROM invoice ORDER BY issued_ms, number")
        await self._accounts()
        await self._tiers()
        await self._passed_on()
        self._numbers()
        await self._statements()

    # Every atom of every account.
    async def _accounts(self):
        admin = self.run.place.admin
        self.due = defaultdict(int)
        await self._usage()
        await self._documents()
        await self._credits()
        await self._partners()
        found = defaultdict(int)
        for it in await admin.fetch(
            "SELECT a.kind, a.tenant, a.supplier, a.currency, sum(e.amount)::int8 AS amount"
            " FROM entry AS e JOIN account AS a ON a.id = e.account GROUP BY 1, 2, 3, 4"
        ):
            whose = it["tenant"] or it["supplier"]
            kind = "tenant" if it["kind"] in _OF_TENANTS else it["kind"]
            found[kind, whose, it["currency"]] += it["amount"]
        for key in sorted(found.keys() | self.due.keys()):
            insist(
                found[key] == self.due[key], "an account is not explained", key, found[key],
                self.due[key],
            )  # fmt: skip

    def _post(self, kind, amount, whose="", currency="USD"):
        self.due[kind, whose, currency] += amount

    def _split(self, amount, lease, own):
        """Where a line's amount went, or comes back from."""
        row = self.leases.get(lease)
        contract = self.contracts.get(row["contract"]) if row else None
        payable, back = share(amount, contract)
        if contract is not None:
            self._post("supplier_payable", payable, contract["supplier"])
            self._post("supplier_holdback", back, contract["supplier"])
        self._post(own, amount - payable - back)

    async def _usage(self):
        for it in self.lines:
            self._post("tenant", -it["amount_nano"], it["tenant"])
            self._split(it["amount_nano"], it["lease"], "revenue")
        live = [lease for lease, it in self.leases.items() if it["state"] != "FINAL"]

        async def read(tx):
            return await tx.leases.lock(live)

        for lease, stored in (await self.run.read(read)).items():
            row = stored.row
            frozen = {it.number: it.frozen_ns for it in row.segments if it.frozen_ns is not None}
            for nano in dues(row.segments, row.counters, frozen):
                self._post("tenant", -nano, row.ask.tenant)
                self._split(nano, lease, "revenue")
        for it in await self.run.place.admin.fetch("SELECT * FROM commitment_hour"):
            self._post("tenant", it["cover_nano"] - it["fee_nano"], it["tenant"])
            self._post("revenue", it["fee_nano"] - it["cover_nano"])

        open_nano = await self.run.place.admin.fetchval(
            "SELECT coalesce(sum(greatest(0, amount_nano - written_off_nano)), 0)::int8 FROM excess"
        )
        self._post("suspense", open_nano)
        self._post("unbilled", -open_nano)

    async def _documents(self):
        for it in self.invoices:
            if it["state"] == "DRAFT":
                continue
            self._post("tax_payable", it["tax_nano"])
            if it["kind"] == "INVOICE":
                self._post("tenant", it["total_nano"] - it["payable_nano"], it["tenant"])
                self._post("rounding", it["net_nano"] - it["total_nano"])
            else:
                self._post("tenant", -it["payable_nano"], it["tenant"])
        for it in await self.run.place.admin.fetch(
            "SELECT n.lease, (n.line->>'amount_nano')::int8 AS amount FROM invoice_line AS n"
            " JOIN invoice AS i ON i.id = n.invoice WHERE i.kind = 'CREDIT_NOTE'"
        ):
            self._split(it["amount"], it["lease"], "credit_note")

    async def _credits(self):
        """Warnings not given and nodes lost: each lease's notice at its dearest rate, once."""
        admin = self.run.place.admin
        rates = {it["lease"]: it["rate"] for it in await admin.fetch(
            "SELECT lease, max(rate_nano_per_hour) AS rate FROM segment GROUP BY 1")}  # fmt: skip
        for it in await admin.fetch(_CREDITS):
            self._post("tenant", it["amount"], it["tenant"])
            if it["kind"] == "credit":
                self._post("cash", -it["amount"])
                continue
            lease = it["cause"]
            insist(it["idem_key"] in (f"{it['kind']}/{lease}", f"{it['kind']}/{lease}/cut"),
                   "a credit under another key", dict(it))  # fmt: skip
            most = rates[lease] * self.leases[lease]["notice_ms"] // _HOUR_MS
            lost = it["kind"] == "sla_credit"
            insist(0 < it["amount"] <= most and (not lost or it["amount"] == most),
                   "another credit than is owed", dict(it), most)  # fmt: skip
            self._split(-it["amount"], lease, "sla_expense")

    async def _partners(self):
        admin = self.run.place.admin
        for it in await admin.fetch(
            "SELECT supplier, sum(amount_nano)::int8 AS amount FROM holdback_release GROUP BY 1"
        ):
            self._post("supplier_payable", it["amount"], it["supplier"])
            self._post("supplier_holdback", -it["amount"], it["supplier"])
        for it in await admin.fetch(
            "SELECT tenant, sum(amount_nano)::int8 AS amount FROM payment GROUP BY 1"
        ):
            self._post("cash", -it["amount"])
            self._post("tenant", it["amount"], it["tenant"])
        paid = {}
        for it in await admin.fetch(
            "SELECT k.idem_key, a.supplier, e.amount FROM journal AS j"
            " JOIN journal_key AS k ON k.journal = j.id JOIN entry AS e ON e.journal = j.id"
            " JOIN account AS a ON a.id = e.account"
            " WHERE j.kind = 'payout' AND a.kind = 'supplier_payable'"
        ):
            self._post("supplier_payable", it["amount"], it["supplier"])
            self._post("cash", -it["amount"])
            paid[it["idem_key"].removeprefix("payout/")] = -it["amount"]
        for request, nano in self.run.office.paid.items():
            insist(paid.get(request) == nano, "a payout is not in the books", request, nano)
        for it in await admin.fetch(
            "SELECT x.from_currency, f.amount AS paid, t.amount AS credited, a.tenant"
            " FROM exchange AS x JOIN entry AS f ON f.journal = x.from_journal AND f.amount > 0"
            " JOIN entry AS t ON t.journal = x.to_journal AND t.amount > 0"
            " JOIN account AS a ON a.id = t.account"
        ):
            self._post("cash", -it["paid"], currency=it["from_currency"])
            self._post("fx", it["paid"], currency=it["from_currency"])
            self._post("fx", -it["credited"])
            self._post("tenant", it["credited"], it["tenant"])

    # Prices beyond run time.
    async def _tiers(self):
        tariffs = {it["version"]: it for it in await self.run.place.admin.fetch(
            "SELECT * FROM tariff")}  # fmt: skip
        self.tariffs = tariffs
        totals, amounts = defaultdict(int), defaultdict(int)
        for it in self.lines:
            if it["meter"] == "run":
                continue
            tariff = tariffs[it["price_version"]]
            insist(tariff["meter"] == it["meter"] and tariff["site"] in ("", it["site"]),
                   "another meter's tariff", dict(it), dict(tariff))  # fmt: skip
            if not tariff["pass_through"]:
                ended_ms = it["cites_ms"] or it["recorded_ms"]
                at = datetime.datetime.fromtimestamp(ended_ms / 1_000, datetime.UTC)
                key = (it["tenant"], it["price_version"], at.year, at.month)
                totals[key] += it["charged"]
                amounts[key] += it["amount_nano"]
        for key, total in totals.items():
            insist(amounts[key] == cost(tariffs[key[1]], total), "a month's price", key, total)
            self.run.town.meet("month priced")

    async def counted(self, alarmed):
        """At the end: what of each meter was charged is what its node counted, late or not."""
        town, charged = self.run.town, defaultdict(int)
        for it in self.lines:
            charged[it["lease"], it["segment"], it["meter"]] += it["charged"]
        for node in town.nodes.values():
            for lease, task in node.ended.items():
                if lease in town.oracle.lies | town.doubted | alarmed:
                    continue
                for (segment, meter), count in node.counters(task).items():
                    if meter in ("egress", "storage", "energy"):
                        told = charged[lease, segment, meter]
                        insist(told == count, "not what was counted", lease, meter, told, count)
                        town.meet("meter is what was counted")

    async def _passed_on(self):
        """Energy at the site's price, by the hours into which it fell; a rounding each hour."""
        powers = {it["id"]: it for it in await self.run.place.admin.fetch(
            "SELECT * FROM site_power")}  # fmt: skip
        for it in self.lines:
            if it["meter"] == "run" or not self.tariffs[it["price_version"]]["pass_through"]:
                continue
            power = powers.get(it["power"])
            prices = power["price_nano_per_kwh"] if power else []
            if not prices:
                insist(it["amount_nano"] == 0, "energy of no known price", dict(it))
                continue
            first, last = it["starts_ms"], max(it["ends_ms"], it["starts_ms"] + 1)
            exact, hour = 0, first // _HOUR_MS
            while hour * _HOUR_MS < last:
                span = min(last, (hour + 1) * _HOUR_MS) - max(first, hour * _HOUR_MS)
                exact += span * prices[hour % 24 % len(prices)]
                hour += 1
            due = it["charged"] * exact * power["pue_milli"] // (
                (last - first) * 1_000 * 3_600_000_000)  # fmt: skip
            off = 2 + max(prices) * power["pue_milli"] * 24 // (1_000 * 3_600_000_000)
            insist(abs(it["amount_nano"] - due) <= off, "energy passed on", dict(it), due)
            self.run.town.meet("energy passed on")

    # Documents.
    def _numbers(self):
        series = defaultdict(list)
        for it in self.invoices:
            if it["number"]:
                stem, _, count = it["number"].rpartition("-")
                series[stem].append((int(count), it["issued_ms"]))
        for stem, told in series.items():
            told.sort()
            insist([count for count, _ in told] == list(range(1, len(told) + 1)),
                   "numbers have a gap", stem, told)  # fmt: skip
            times = [ms for _, ms in told]
            steady = not self.run.town.profile.jump
            insist(not steady or times == sorted(times), "numbers and times differ", stem)
            self.run.town.meet(f"numbers {stem}", len(told))
        for it in self.invoices:
            half = it["net_nano"] * 2 - it["total_nano"] * 2
            insist(it["net_nano"] % _CENT == 0 and abs(half) <= _CENT, "not rounded", dict(it))
            tax = it["parties"]
            tax = json.loads(tax) if isinstance(tax, str) else tax
            insist(it["payable_nano"] == it["net_nano"] + it["tax_nano"], "not asked for", dict(it))
            if it["state"] == "FINAL" and it["kind"] == "INVOICE":
                off = it["tax_nano"] * 20_000 - it["net_nano"] * 2 * tax["tax"]["permyriad"]
                insist(abs(off) <= _CENT * 10_000, "another tax", dict(it))
                self.run.town.meet(f"tax {tax['tax']['treatment']}")

    async def _statements(self):
        """A supplier's statement is the customers' lines, and explains what it is owed."""
        lines = defaultdict(list)
        for it in self.lines:
            contract = self.contracts.get(it["contract"])
            if contract is not None and it["amount_nano"]:
                lines[contract["supplier"]].append(
                    (it["lease"], it["segment"], it["meter"], it["class"], it["amount_nano"],
                     *share(it["amount_nano"], contract))
                )  # fmt: skip
        for name in sorted({it["supplier"] for it in self.contracts.values()}):

            async def ask(books, name=name):
                return await statement(books, name, 0, None)

            try:
                told = await self.run.asked(ask)
            except Missing:
                continue
            rows = [
                (it.lease, it.segment, it.meter, it.kind, it.amount_nano, it.parts.payable_nano,
                 it.parts.holdback_nano)
                for it in told.lines
            ]  # fmt: skip
            insist(sorted(rows) == sorted(lines[name]), "a statement is no mirror", name)
            owed = (self.due["supplier_payable", name, "USD"],
                    self.due["supplier_holdback", name, "USD"])  # fmt: skip
            insist(told.closing == owed and told.opening == (0, 0), "another close", name, told)
            self.run.town.meet("statement")
