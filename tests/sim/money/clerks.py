"""More of a world's back office: who pays invoices, writes off suspense, prices sites and haste."""

from __future__ import annotations

from gridlease_billing.domain.invoice import DRAFT, INVOICE
from gridlease_billing.domain.price import NewPrice
from gridlease_billing.domain.priority import Band, NewPriorityTable
from gridlease_billing.domain.spot import ChipUse, SpotPolicy
from gridlease_billing.market import move_spot
from gridlease_billing.prices import create_price, create_priorities
from gridlease_billing.receivable_ports import NewPayment, NewRefund
from gridlease_billing.receivables import pay, refund, set_terms
from gridlease_billing.suspense import write_off

from tests.sim.money.broken import insist

_CENT = 10_000_000
_CHIPS = ("H100", "L4")
_SITES = ("", "sites/a", "sites/b")
_TIERS = ("RESERVED", "ON_DEMAND", "SPOT")


def pay_invoice(office):
    """What is open, a part of it, or more."""
    known = [it for it in office.documents.values()
             if it.head.kind == INVOICE and it.head.state != DRAFT]  # fmt: skip
    if not known:
        return
    r, invoice = office.random, office.random.choice(known[-30:])
    amount = r.choice([0, 0, r.randrange(1, 100) * _CENT, invoice.tax_nano + _CENT])

    async def work(key):
        told = NewPayment(invoice.head.tenant, invoice.head.name, amount, "sim", key)
        made, _ = await pay(office.town.books, told)
        insist(made.parts.amount_nano > 0 and amount in (0, made.parts.amount_nano), "paid", told)
        office.payments[key] = made
        return made

    office.send("payment", work)


def refund_payment(office):
    """What was paid goes back, a part of it at times, or more than was paid."""
    if not office.payments:
        return
    r = office.random
    paid = office.payments[r.choice(list(office.payments)[-30:])]
    whole = paid.parts.amount_nano
    amount = r.choice([0, r.randrange(1, whole + 1), whole, whole + 1])

    async def work(key):
        told = NewRefund(paid.tenant, paid.request_id, amount, "sim", key)
        made, _ = await refund(office.town.books, told)
        back = -made.parts.amount_nano
        insist(0 < back <= whole and amount in (0, back), "paid back", told, made)
        return made

    office.send("payment back", work)


def terms(office):
    """Who is late gets no grants for a while, or gets time for ever."""
    r = office.random
    tenant, days, grace = r.choice(office.tenants), r.choice([0, 1, 14]), r.choice([0, None, None])
    office.send("terms", lambda _: set_terms(office.town.books, tenant, days, grace))


def write_off_suspense(office):
    lease = office.random.choice(sorted(office.town.oracle.lies) or ["l0"])

    async def work(key):
        nano = await write_off(office.town.books, lease, "sim", key)
        first = office.written_off.setdefault(key, nano)
        insist(first == nano > 0, "written off twice", lease, first, nano)
        return nano

    office.send("write off", work)


def haste(office):
    """What priorities cost from now on."""
    r = office.random
    bands = [Band(0, r.choice([800, 1_000]))]
    for above in sorted(r.sample([1, 25, 50, 75, 100], r.randrange(4))):
        bands.append(Band(above, bands[-1].permille + r.randrange(1, 700)))
    later_ms = None if r.random() < 0.6 else office.now_ms() + r.randrange(200_000)
    new = tuple(bands)
    office.send("priorities", lambda key: create_priorities(
        office.town.books, NewPriorityTable(new, later_ms, key)))  # fmt: skip


def site_price(office):
    """A site's own, or none of its own any more."""
    r = office.random
    chip, tier, site = r.choice(_CHIPS), r.choice(_TIERS), r.choice(_SITES[1:])
    gone = r.random() < 0.3
    nano = 0 if gone else r.randrange(1, 9 * 10**9)
    office.send("site price", lambda key: create_price(office.town.books, NewPrice(
        chip, tier, nano, None, key, site=site, withdrawn=gone)))  # fmt: skip


def spot(office):
    r = office.random
    end_ms = office.now_ms() + r.choice([0, 0, -300_000, 900_000])
    uses = []
    for site in r.sample(_SITES, r.randrange(1, 4)):
        total = r.choice([0, 8_000, 64_000])
        uses.append(ChipUse(r.choice(_CHIPS), total, r.randrange(total + 1), r.randrange(20_000),
                            site))  # fmt: skip
    office.send("spot", lambda _: move_spot(office.town.books, end_ms, uses, SpotPolicy()))


ACTS = (
    (pay_invoice, 4), (refund_payment, 2), (terms, 1), (write_off_suspense, 1), (haste, 1),
    (site_price, 2), (spot, 2),
)  # fmt: skip
