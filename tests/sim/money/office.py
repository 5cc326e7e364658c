"""The back office of a world: what operators and tenants do beside leases, and at night.

Everything is delivered as all else is: never, twice, late, to processes that die. Each request is
sent again at times under its own id, and must be answered as it was.
"""

from __future__ import annotations

import random

from gridlease_billing.adapters.report_store import PostgresReportBook
from gridlease_billing.close import Closure, close
from gridlease_billing.commitments import Wish, bill_hours, buy
from gridlease_billing.contract_ports import NewTariff
from gridlease_billing.credit_note import Refund, create_credit_note
from gridlease_billing.domain.grant_row import Cause
from gridlease_billing.domain.invoice import DRAFT, INVOICE
from gridlease_billing.domain.issuer import LegalEntity, TaxProfile, TaxSource
from gridlease_billing.domain.price import NewPrice
from gridlease_billing.domain.rating import Step, Tariff
from gridlease_billing.domain.report import Budget
from gridlease_billing.domain.spot import ChipUse
from gridlease_billing.domain.tax import TaxRate
from gridlease_billing.exchange import Foreign, pay_in_foreign
from gridlease_billing.invoice import create_invoice, finalize_invoice
from gridlease_billing.months import make_months
from gridlease_billing.ports import Scope
from gridlease_billing.prices import create_price
from gridlease_billing.reports import find_anomalies, keep_windows, set_budget, watch_budgets
from gridlease_billing.supplier_ports import NewContract, Payout
from gridlease_billing.suppliers import (
    assign_node,
    create_contract,
    create_supplier,
    pay_out,
    release_held,
)
from gridlease_billing.tariffs import create_tariff
from gridlease_billing.taxes import add_rate, set_entity, set_profile
from gridlease_kernel.faults import Fault
from gridlease_kernel.ids import CountingIds

from tests.sim.money import clerks
from tests.sim.money.broken import insist
from tests.sim.money.town import TERMS

_HOUR_MS = 3_600_000
_CENT = 10_000_000
PROJECT = "projects/p"
CHIPS = ("H100", "L4")
SUPPLIERS = ("suppliers/s0", "suppliers/s1", "suppliers/s2")
_COUNTRIES = ("", "DE", "FR", "IE", "US", "GR")  # GR has no rate at first
_PER = {"egress": 2**30, "storage": 2**30 * 3_600, "energy": 3_600_000_000}


class Office:
    """``pace_ms``: the longest between two of its acts."""

    def __init__(self, town, place, seed, pace_ms):
        self.town, self.pace_ms = town, pace_ms
        self.book = PostgresReportBook(place.pool)
        self.random = random.Random(f"{seed}:office")
        self.tenants, self.nodes = list(town.tenants), list(town.nodes)
        self.ids = CountingIds()
        self.documents = {}  # name -> invoice, as it was answered
        self.answers = {}  # key of a request -> what was answered first
        self.requests = []  # (kind, key, use case): to be sent again
        self.paid, self.written_off = {}, {}  # by request: nano
        self.payments = {}
        self.slept_at = 0  # events
        self.verified = set()  # documents
        self._number = 0

    # What is delivered.
    async def do(self, kind, key, work):
        """One call; the same request is answered the same, whatever happened to it."""
        answer = await self.town.call(kind, work())
        if answer is None:
            return
        self.town.meet(f"{kind} done")
        first = self.answers.setdefault(key, answer)
        if first is not answer:
            self.town.meet("answered again")
            insist(_identity(first) == _identity(answer), "another answer", key, first, answer)
        self._file(answer)

    def _file(self, answer):
        head = getattr(answer, "head", None)
        if head is not None and hasattr(answer, "billed"):
            known = self.documents.get(head.name)
            insist(known is None or known.lines == answer.lines, "an invoice is edited", head)
            if known is None or known.head.state == DRAFT:
                self.documents[head.name] = answer

    def send(self, kind, work):
        key = f"o{self._next()}"
        self.requests.append((kind, key, work))
        self.town.send(self.do, kind, key, lambda: work(key))

    def _next(self):
        self._number += 1
        return self._number

    # Time.
    async def begin(self):
        """What there is before the first lease."""
        await self._surely(lambda: self._entity("default", "GL"))
        for chip in CHIPS:
            price = NewPrice(chip, "RESERVED", 2_000_000_000, None, f"reserved-{chip}")
            await self._surely(lambda price=price: create_price(self.town.books, price))
        for name in SUPPLIERS:
            await self._surely(lambda name=name: create_supplier(self.town.books, name, name[-2:]))
            terms = self._terms(name)
            await self._surely(
                lambda terms=terms: create_contract(self.town.books, terms(f"first-{terms.name}"))
            )
        for n, node in enumerate(self.nodes):
            if n % 3:
                owner = SUPPLIERS[n % len(SUPPLIERS)]
                await self._surely(
                    lambda node=node, owner=owner: assign_node(
                        self.town.books, node, owner, f"first-{node}"
                    )
                )
        for meter in _PER:
            tariff = self._tariff(meter, "", None)
            await self._surely(
                lambda tariff=tariff, meter=meter: create_tariff(
                    self.town.books, tariff(f"first-{meter}")
                )
            )
        self.town.after(1, self.turn)

    async def _surely(self, work):
        for _ in range(20):
            try:
                return await work()
            except Fault:
                continue
        raise AssertionError("the office does not open")

    async def turn(self):
        """One thing, and at times an earlier one again."""
        if self.town.quiet:
            return
        r = self.random
        self.town.after(r.randrange(100, self.pace_ms), self.turn)
        acts, weights = zip(*_ACTS, strict=True)
        r.choices(acts, weights)[0](self)
        if r.random() < 0.15 and self.requests:
            kind, key, work = r.choice(self.requests[-300:])
            self.town.send(self.do, kind, key, lambda: work(key))

    def sleep(self, every):
        """Hours in which nobody does anything; what was due comes after them."""
        town, r = self.town, self.random
        if town.quiet or town.events < self.slept_at + every:
            return
        self.slept_at = town.events
        hours = r.choice([1, 2, 7, 13, 30, 49])
        town.clock.now_ms += hours * _HOUR_MS + r.randrange(_HOUR_MS)
        town.meet("hours passed", hours)
        for _ in range(2):
            self._hours()
            self._release()

    def now_ms(self):
        return self.town.clock.database_ms()

    # Documents.
    def _invoice(self):
        r, town = self.random, self.town
        tenant, draft = r.choice(self.tenants), r.random() < 0.3
        asks = [it for it in list(town.asks.values())[-60:] if it.tenant == tenant]
        job = r.choice(asks).job if asks and r.random() < 0.2 else ""
        scope = Scope(tenant, PROJECT, job)

        def work(key):
            return create_invoice(town.books, self.ids, scope, key, draft=draft)

        self.send("draft" if draft else "invoice", work)

    def _finalize(self):
        drafts = [it.head for it in self.documents.values() if it.head.state == DRAFT]
        if drafts:
            head = self.random.choice(drafts)
            self.send(
                "finalize", lambda _: finalize_invoice(self.town.books, head.tenant, head.name)
            )

    def _refund(self):
        """Parts of lines, whole ones, more than there is, and whole invoices."""
        r = self.random
        known = [it for it in self.documents.values()
                 if it.head.kind == INVOICE and it.head.state != DRAFT]  # fmt: skip
        if not known:
            return
        invoice = r.choice(known[-20:])
        at = r.randrange(len(invoice.lines))
        whole = max(0, invoice.billed[at]) + max(0, invoice.taxes[at])
        position, amount, beyond = at + 1, whole, False
        way = r.choice(["part", "part", "part", "rest", "whole", "beyond", "all", "nowhere"])
        if way == "part":
            amount = r.randrange(0, max(1, whole // _CENT)) * _CENT + _CENT
        elif way == "rest":
            amount = 0
        elif way == "beyond":
            amount, beyond = whole + _CENT * r.randrange(1, 100), True
        elif way == "all":
            position = amount = 0
        elif way == "nowhere":
            position, beyond = len(invoice.lines) + 1, True
        head = invoice.head
        reason = f"{way} of {position}"

        async def work(key):
            told = Refund(head.tenant, head.name, reason, key, position, amount)
            note = await create_credit_note(self.town.books, self.ids, told)
            insist(not beyond, "gave back more than a line", told, note)
            insist(not amount or -note.payable_nano == amount, "gave back another amount", told)
            return note

        self.send(f"refund {way}", work)

    def _short_warning(self):
        """The announced warning was cut short: told after the first Close, twice at times."""
        r = self.random
        gone = [it for it in list(self.town.asks)[-80:] if it not in self.town.open]
        if gone:
            cause = r.choice([Cause.PREEMPTED, Cause.DRAINED])
            told = [Closure(r.choice(gone), 0, cause, r.randrange(1, 60_000))]
            self.send("cut short", lambda _: close(self.town.books, told, TERMS))

    # Prices of everything.
    def _tariff(self, meter, site, later_ms):
        r = self.random
        steps = [Step(0, r.choice([0, r.randrange(10**8), 10**9]))]
        above = 0
        for _ in range(r.randrange(3)):
            above += r.randrange(1, 10 ** r.randrange(7, 11))
            steps.append(Step(above, r.randrange(10 ** r.randrange(6, 10))))
        passed_on = meter == "energy" and r.random() < 0.4
        least = r.choice([0, 0, 0, r.randrange(10**6)])
        tariff = Tariff(tuple(steps), _PER[meter], 0 if passed_on else least)
        return lambda key: NewTariff(meter, site, tariff, passed_on, later_ms, key)

    def _price_meter(self):
        r = self.random
        later_ms = None if r.random() < 0.7 else self.now_ms() + r.randrange(300_000)
        new = self._tariff(r.choice(list(_PER)), r.choice(["", "", "sites/a", "sites/b"]), later_ms)
        self.send("tariff", lambda key: create_tariff(self.town.books, new(key)))

    def _reserved(self):
        chip, nano = self.random.choice(CHIPS), self.random.randrange(1, 5_000_000_000)
        self.send("price", lambda key: create_price(
            self.town.books, NewPrice(chip, "RESERVED", nano, None, key)))  # fmt: skip

    def _commit(self):
        r = self.random
        first_ms = self.now_ms() // _HOUR_MS * _HOUR_MS + r.choice([0, 0, _HOUR_MS])
        until_ms = first_ms + r.randrange(1, 4) * _HOUR_MS
        chip, site = r.choice(CHIPS), r.choice(["", "", "sites/a"])
        tenant, milli = r.choice(self.tenants), r.choice([1, 125, 500, 8_000, 60_000])
        self.send("commitment", lambda key: buy(self.town.books, self.ids, Wish(
            tenant, PROJECT, chip, site, milli, first_ms, until_ms, key)))  # fmt: skip

    def _hours(self):
        limit = self.random.choice([1, 3, 50])
        self.send("hours", lambda _: bill_hours(self.town.books, limit))

    # Partners.
    def _terms(self, name):
        r = self.random
        share, back = r.choice([0, 3_333, 7_000, 10_000]), r.choice([0, 777, 1_000, 10_000])
        days = r.choice([0, 0, 1])

        def terms(key):
            return NewContract(name, share, back, days, key)

        terms.name = name
        return terms

    def _contract(self):
        terms = self._terms(self.random.choice(SUPPLIERS))
        self.send("contract", lambda key: create_contract(self.town.books, terms(key)))

    def _assign(self):
        node = self.random.choice(list(self.town.nodes))
        owner = self.random.choice(["", *SUPPLIERS])
        self.send("assign", lambda key: assign_node(self.town.books, node, owner, key))

    def _release(self):
        limit = self.random.choice([1, 7, 1_000])
        self.send("release", lambda _: release_held(self.town.books, limit))

    def _payout(self):
        supplier = self.random.choice(SUPPLIERS)
        amount = self.random.choice([0, 0, self.random.randrange(1, 10**9)])

        async def work(key):
            told = Payout(supplier, amount, key, key)
            nano, _ = await pay_out(self.town.books, told)
            insist(nano > 0 and amount in (0, nano), "paid out another amount", told, nano)
            insist(self.paid.setdefault(key, nano) == nano, "paid out twice", told, nano)
            return nano

        self.send("payout", work)

    # Money and taxes.
    def _exchange(self):
        r = self.random
        tenant, amount = r.choice(self.tenants), r.randrange(1, 10**12)
        currency = r.choice(["EUR", "EUR", "GBP", "JPY", "CNY", "XTS", "USD"])
        top, bottom = r.choice([(10_837, 10_000), (13, 12), (1, 157), (1, 10**13)])
        self.send("exchange", lambda key: pay_in_foreign(self.town.books, Foreign(
            tenant, amount, currency, top, bottom, "sim", key)))  # fmt: skip

    async def _entity(self, name, prefix):
        number = self.random.choice(["", "DE811", "DE811"])
        return await set_entity(
            self.town.books, LegalEntity(name, f"{name} GmbH", "Weg 1", "DE", number, prefix)
        )

    def _issuer(self):
        name, prefix = self.random.choice([("default", "GL"), ("second", "EU"), ("third", "GL")])
        self.send("issuer", lambda _: self._entity(name, prefix))

    def _profile(self):
        r = self.random
        profile = TaxProfile(
            r.choice(self.tenants), "A tenant", "Way 2", r.choice(_COUNTRIES),
            r.choice(["", "ID1"]), r.choice(["en", "zh"]),
            r.choice(["default", "default", "second", "none"]),
        )  # fmt: skip
        self.send("profile", lambda _: set_profile(self.town.books, profile))

    def _rate(self):
        r = self.random
        rate = TaxRate(r.choice(["DE", "GR", "FR"]), "VAT", r.choice([0, 700, 1_900, 2_575]),
                       self.now_ms() + r.randrange(60_000))  # fmt: skip
        self.send("tax rate", lambda _: add_rate(self.town.books, TaxSource(rate, "sim")))

    # What is watched.
    def _budget(self):
        r = self.random
        budget = Budget(
            r.choice(self.tenants), r.choice(["", PROJECT]), 10 ** r.randrange(6, 12),
            tuple(sorted(r.sample([1, 200, 500, 800, 1_000], r.randrange(1, 5)))),
        )  # fmt: skip
        self.send("budget", lambda _: set_budget(self.book, budget))

    def _watch(self):
        self.send("watch", lambda _: watch_budgets(self.book))

    def _upkeep(self):
        end_ms = self.now_ms()
        use = ChipUse(self.random.choice(CHIPS), 8_000, self.random.randrange(8_001), 0)
        self.send("odd days", lambda _: find_anomalies(self.book))
        self.send("window", lambda _: keep_windows(self.book, end_ms, 300_000, [use]))
        self.send("months", lambda _: make_months(self.town.books))


_ACTS = (
    (Office._invoice, 8), (Office._finalize, 4), (Office._refund, 10), (Office._short_warning, 4),
    (Office._price_meter, 3), (Office._reserved, 1), (Office._commit, 3),
    (Office._hours, 2), (Office._contract, 2), (Office._assign, 2), (Office._release, 3),
    (Office._payout, 3), (Office._exchange, 2), (Office._issuer, 1), (Office._profile, 2),
    (Office._rate, 1), (Office._budget, 2), (Office._watch, 3), (Office._upkeep, 1), *clerks.ACTS,
)  # fmt: skip


def _identity(answer):
    """What stays of an answer for ever: of a draft its lines, of a commitment its terms."""
    if hasattr(answer, "billed"):
        return answer.head.name, answer.head.kind, answer.head.tenant, answer.lines
    if hasattr(answer, "bought"):
        return answer.bought, answer.recorded_ms
    if isinstance(answer, tuple):  # what was exchanged, and the balance, which moves on
        return answer[0]
    return type(answer) if _counts(answer) else answer


def _counts(answer):
    """Sums and states move on."""
    return not hasattr(answer, "version") and not hasattr(answer, "effective_ms")
