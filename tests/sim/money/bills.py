"""verify-bill computes every document of a world again, from what the API would tell it."""

from __future__ import annotations

from types import SimpleNamespace

from gridlease.billing.v1 import contract_pb2
from gridlease_billing.domain.invoice import DRAFT, as_json
from gridlease_billing.domain.issuer import TaxSource
from gridlease_billing.domain.tax import TaxRate
from gridlease_billing.invoice import (
    create_invoice,
    draws_of,
    finalize_invoice,
    get_invoice,
    list_invoices,
    replayed,
    reports_of,
)
from gridlease_billing.ports import Scope
from gridlease_billing.prices import list_prices, list_priorities
from gridlease_billing.rpc import invoice_shapes, shapes
from gridlease_billing.rpc.contracts import Contracts
from gridlease_billing.taxes import add_rate, list_rates
from gridlease_cli.evidence import collect
from gridlease_kernel.faults import Precondition
from gridlease_kernel.ids import CountingIds
from gridlease_verify.bill import Trust, check

from tests.sim.money.broken import insist
from tests.sim.money.town import priority_of

_PROJECT = "projects/p"


class Reader:
    """A client of the API, without the wire; what is everybody's is asked once."""

    def __init__(self, run, tenant):
        self._run, self._tenant = run, tenant
        self._known = {}

    async def _ask(self, ask):
        return await self._run.asked(ask)

    async def render_invoice(self, name, _format, *_):
        found = await self._ask(lambda books: get_invoice(books, self._tenant, name))
        return SimpleNamespace(content=as_json(found))

    async def list_evidence(self, name):
        reports = await self._ask(lambda books: reports_of(books, self._tenant, name))
        draws = await self._ask(lambda books: draws_of(books, self._tenant, name))
        return SimpleNamespace(
            reports=[invoice_shapes.report(it) for it in reports],
            draws=[invoice_shapes.draw(it) for it in draws],
        )

    async def list_tax_rates(self):
        if "taxes" not in self._known:
            found = await self._ask(list_rates)
            self._known["taxes"] = [invoice_shapes.rate(it) for it in found]
        return self._known["taxes"]

    async def list_priority_multipliers(self, **_):
        if "priorities" not in self._known:
            found = await self._ask(lambda books: list_priorities(books, history=True))
            self._known["priorities"] = [shapes.priorities(it) for it in found]
        return self._known["priorities"]

    async def get_job(self, job):
        return SimpleNamespace(spec=SimpleNamespace(priority=priority_of(job)))

    async def list_prices(self, **_):
        if "prices" not in self._known:
            found = await self._ask(lambda books: list_prices(books, history=True))
            self._known["prices"] = [shapes.price(it) for it in found]
        return self._known["prices"]

    async def list_tariffs(self):
        if "tariffs" not in self._known:
            request = contract_pb2.ListTariffsRequest()
            told = await self._ask(
                lambda books: Contracts(books, CountingIds()).ListTariffs(request, None)
            )
            self._known["tariffs"] = list(told.tariffs)
        return self._known["tariffs"]


async def _rated(run):
    """A country that no rate has come for gets one: what was sold there can be billed at last."""
    now_ms = run.town.clock.database_ms()
    await run.place.set_clock(now_ms)
    known = await run.asked(list_rates)
    if not any(it.rate.country == "GR" and it.rate.effective_ms <= now_ms for it in known):
        rate = TaxSource(TaxRate("GR", "VAT", 2_400, now_ms - 1), "sim")
        await run.asked(lambda books: add_rate(books, rate))


async def verified(run):
    """At a world's end: bills all that is left, and insists on every document."""
    await _rated(run)
    for tenant in run.town.tenants:
        for it in await run.asked(lambda books, t=tenant: list_invoices(books, Scope(t))):
            if it.head.state == DRAFT:
                await run.asked(lambda books, it=it: finalize_invoice(
                    books, it.head.tenant, it.head.name))  # fmt: skip
        for n in range(3):  # credits that one could not bear stand on the next
            try:
                await run.asked(lambda books, t=tenant, n=n: create_invoice(
                    books, run.office.ids, Scope(t, _PROJECT), f"end{n}"))  # fmt: skip
            except Precondition as fault:
                insist(fault.reason == "NOTHING_TO_BILL", "cannot be billed", fault)
    left = await run.place.admin.fetch(
        "SELECT n.lease, n.segment, n.meter, n.class FROM line AS n WHERE n.amount_nano <> 0"
        " AND NOT EXISTS (SELECT FROM invoice_line AS i WHERE i.lease = n.lease"
        " AND i.segment = n.segment AND i.meter = n.meter"
        " AND (i.line->>'kind' = 'CORRECTION') = (n.class = 'correction'))"
    )
    insist(not left, "a line is on no invoice", [tuple(it) for it in left[:5]])
    await documents(run)


async def documents(run):
    """Every final document that was not looked at: does an independent computation agree?"""
    town, admin = run.town, run.place.admin
    keys = {f"nodes/{it.name}": it.key for it in town.nodes.values() if it.key}
    readers = {tenant: Reader(run, tenant) for tenant in town.tenants}
    for it in await admin.fetch("SELECT id, tenant, kind FROM invoice WHERE state = 'FINAL'"):
        if it["id"] in run.office.verified:
            continue
        run.office.verified.add(it["id"])
        evidence = await collect(readers[it["tenant"]], it["id"])
        lines = evidence["invoice"]["lines"]
        found = check(evidence, Trust(keys, unsigned=True))
        named = [(it, lines[it.line - 1] if it.line else {}) for it in found]
        insist(not named, "verify-bill does not agree", it["id"], len(named), named[:4])
        town.meet(f"verified {it['kind']}")
        for line in lines:
            town.meet(f"line {line['kind']}")
            town.meet(f"meter {line['meter']}")
        if it["kind"] == "INVOICE":
            again = await run.asked(lambda books, it=it: replayed(
                books, it["tenant"], it["id"]))  # fmt: skip
            insist(again.content_sha256 == evidence["invoice"]["content_sha256"],
                   "the books make another invoice", it["id"])  # fmt: skip
