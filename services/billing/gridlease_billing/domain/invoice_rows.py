"""A document as rows: plain CSV, and FOCUS."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from gridlease_billing.domain import focus, focus_rules
from gridlease_billing.domain.credit_note import share
from gridlease_billing.domain.focus import (
    SERVICES,
    Bill,
    Category,
    Charge,
    Commitment,
    Priced,
    Pricing,
)
from gridlease_billing.domain.footprint_line import INFORMATION, SITE_ENERGY
from gridlease_billing.domain.invoice import CREDIT_NOTE, Invoice
from gridlease_billing.domain.priority import METER
from gridlease_billing.domain.segment import RUN_METER
from gridlease_billing.domain.tariff_line import MINIMUM, meter_of
from gridlease_billing.domain.tax import Treatment
from gridlease_billing.domain.usage import TIMED, Line

Cell = Callable[[Line], object]
_CSV: Mapping[str, Cell] = {
    "kind": lambda it: it.kind,
    "meter": lambda it: it.meter,
    "lease": lambda it: it.lease,
    "segment": lambda it: it.segment,
    "job": lambda it: it.job,
    "node": lambda it: it.node,
    "site": lambda it: it.site,
    "chip": lambda it: it.chip,
    "tier": lambda it: it.tier,
    "quantity_milli": lambda it: it.quantity_milli,
    "rate_nano_per_hour": lambda it: it.rate_nano_per_hour,
    "price_version": lambda it: it.price_version,
    "starts": lambda it: focus.moment(it.starts_ms or it.opened_ms),
    "ends": lambda it: focus.moment(it.ends_ms or it.opened_ms, up=True),
    "counter": lambda it: it.counter_ns,
    "granted": lambda it: it.granted_ns,
    "charged": lambda it: it.charged_ns,
    "amount_nano": lambda it: it.amount_nano,
    "cites": lambda it: it.cites,
    "note": lambda it: it.note,
}
# A meter's counts in its consumed unit, and in its priced unit.
_CONSUMED = {"egress": 1, "storage": 1, "energy": 1_000}
_PRICED_IN = {"egress": 10**9, "storage": 3_600 * 10**9, "energy": 3_600_000_000}
_SECOND_NS, _HOUR_NS = 10**9, 3_600 * 10**9


def as_csv(invoice: Invoice) -> bytes:
    """A row for each line, its number, what it is asked for and its tax beside it."""
    names = ("invoice", "position", *_CSV, "billed_nano", "tax_nano", "currency")
    rows = [
        {
            "invoice": invoice.head.number or invoice.head.name,
            "position": str(at),
            **{name: str(cell(line)) for name, cell in _CSV.items()},
            "billed_nano": str(billed),
            "tax_nano": str(tax),
            "currency": invoice.currency,
        }
        for at, (line, billed, tax) in enumerate(
            zip(invoice.lines, invoice.billed, invoice.taxes, strict=True), start=1
        )
    ]
    return focus.csv_of(names, rows)


def as_focus(invoice: Invoice) -> bytes:
    """The document in the columns of FOCUS. Each rule is looked at: what breaks one is a bug."""
    rows = focus_rows(invoice)
    number = rows[0]["InvoiceId"] if rows else None
    payable = {number: focus.money(invoice.payable_nano)} if number else {}
    broken = focus_rules.broken_file(rows, payable)
    assert not broken, (invoice.head.name, broken[:5])
    return focus.csv_of(focus.columns(), rows)


def focus_rows(invoice: Invoice) -> list[dict[str, focus.Cell]]:
    """A row for each line, and one for the tax."""
    head = invoice.head
    times = [(it.starts_ms or it.opened_ms, it.ends_ms or it.opened_ms) for it in invoice.lines]
    starts_ms = min((starts for starts, _ in times), default=head.issued_ms)
    ends_ms = max((ends for _, ends in times), default=head.issued_ms)
    bill = Bill(
        head.number or head.name,
        head.tenant,
        head.project,
        invoice.currency,
        starts_ms,
        ends_ms + 1_000,
        invoice.parties.seller.name or focus.PROVIDER,
    )
    shares = _shares(invoice.lines)
    charges = [
        replace(
            _charge(line, billed, max(starts, 0), max(starts, ends)),
            energy_mj=shares.energy(at, line),
            carbon_mg=shares.carbon_mg.get(at),
        )
        for at, (line, billed, (starts, ends)) in enumerate(
            zip(invoice.lines, invoice.billed, times, strict=True)
        )
        if line.kind != INFORMATION
    ]
    tax = invoice.parties.tax
    if invoice.tax_nano:
        assert tax.treatment is Treatment.STANDARD, tax
        name, cost = f"{tax.country} {tax.name}", invoice.tax_nano
        charges.append(
            Charge(RUN_METER, Category.TAX, name, starts_ms, ends_ms, cost, cost, cost, cost)
        )
    return [focus.row(bill, charge) for charge in charges]


@dataclass(frozen=True, slots=True)
class _Shares:
    """What the lines that tell of energy and carbon come to, by the line of run time."""

    energy_mj: Mapping[int, int]
    carbon_mg: Mapping[int, int]
    told: frozenset[str]  # leases whose energy at the site is told

    def energy(self, at: int, line: Line) -> int | None:
        """Of a line: its share, or what its device counted where the site's is not told."""
        if line.kind == "USAGE" and line.meter == "energy" and line.lease not in self.told:
            return line.charged_ns
        return self.energy_mj.get(at)


def _shares(lines: Sequence[Line]) -> _Shares:
    """Each lease's figures, by the time of its lines of run time, by largest remainder.

    Where a document has none of them (what came late was no run time), on the lease's first line.
    """
    running: defaultdict[str, list[int]] = defaultdict(list)
    first: dict[str, list[int]] = {}
    energy: defaultdict[str, int] = defaultdict(int)
    carbon: defaultdict[str, int] = defaultdict(int)
    for at, line in enumerate(lines):
        if line.kind in ("USAGE", "CORRECTION"):
            first.setdefault(line.lease, [at])
            if line.meter == RUN_METER:
                running[line.lease].append(at)
        elif line.kind == INFORMATION:
            (energy if line.meter == SITE_ENERGY else carbon)[line.lease] += line.charged_ns
    places = first | running
    return _Shares(
        _shared(lines, places, energy), _shared(lines, places, carbon), frozenset(energy)
    )


def _shared(
    lines: Sequence[Line], running: Mapping[str, Sequence[int]], figures: Mapping[str, int]
) -> dict[int, int]:
    found: dict[int, int] = {}
    for lease, figure in figures.items():
        if places := running.get(lease):
            shares = shared([lines[at].charged_ns for at in places], figure)
            found.update(zip(places, shares, strict=True))
    return found


def shared(weights: Sequence[int], figure: int) -> list[int]:
    """A figure in proportion to the weights, by largest remainder; none of them counts as none.

    >>> shared([10, 20], 100), shared([0, 0], 3)
    ([33, 67], [2, 1])
    """
    # Shares of a larger whole: scaled up, so that each is at least what it may get.
    return share([max(1, weight) * max(1, figure) for weight in weights], figure)


def _charge(line: Line, billed_nano: int, starts_ms: int, ends_ms: int) -> Charge:
    own, part = meter_of(line.meter)
    meter = own if own in SERVICES else RUN_METER
    pot = line.kind == "PURCHASE"
    # A price of a unit is never negative: what is taken off is a credit.
    discount = line.meter == METER and line.rate_nano_per_hour < 0
    minimum = part == MINIMUM
    credit = discount or (minimum and line.amount_nano < 0) or line.kind in ("CREDIT", CREDIT_NOTE)
    cost = billed_nano if credit else line.amount_nano
    late = line.kind == "CORRECTION"
    priced = None if credit or late or minimum else _priced(line)
    listed = cost
    if priced is not None and line.meter not in TIMED and not pot:
        listed = round(priced.list_unit_nano * priced.quantity)
    said = f"{line.chip} {line.tier}, {line.meter}" + (f": {line.note}" if line.note else "")
    return Charge(
        meter,
        Category.CREDIT if credit else Category.ADJUSTMENT if minimum else Category.USAGE,
        said.strip(),
        starts_ms,
        ends_ms,
        billed_nano,
        cost,
        listed,
        listed,
        priced,
        correction=late or line.kind == CREDIT_NOTE,
        corrects=line.cites,
        commitment=_commitment(line) if pot else None,
        lease="" if pot else line.lease,
        job=line.job,
        node=line.node,
        region=line.site,
    )


def _priced(line: Line) -> Priced:
    meter = meter_of(line.meter)[0]
    quantity = Fraction(line.charged_ns, _PRICED_IN.get(meter, _HOUR_NS))
    rate = line.rate_nano_per_hour
    pot = line.kind == "PURCHASE"
    if line.meter not in TIMED and not pot:  # by a month's total: what a unit of this line came to
        quantity = Fraction(focus.quantity(quantity))  # as it is written
        rate = round(line.amount_nano / quantity) if quantity else 0
    return Priced(
        sku=f"{line.chip}/{line.tier}/{line.meter}",
        price=f"price/{line.price_version}/{line.chip}/{line.tier}/{line.meter}",
        list_unit_nano=rate,
        contracted_unit_nano=rate,
        quantity=quantity,
        consumed=None
        if pot and line.note == "unused"
        else Fraction(line.charged_ns, _CONSUMED.get(meter, _SECOND_NS)),
        category=Pricing.COMMITTED
        if pot
        else Pricing.DYNAMIC
        if line.tier == "SPOT"
        else Pricing.STANDARD,
    )


def _commitment(line: Line) -> Commitment:
    name = line.lease.rpartition("/")[2]
    hours = Fraction(line.charged_ns, _HOUR_NS)
    return Commitment(line.lease, name, line.note == "used", hours)
