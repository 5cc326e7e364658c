"""Charges as FOCUS has them: rows of the FinOps Open Cost and Usage Specification, version 1.2.

Each charge of an invoice becomes one row, so that a customer's cost tools read a Gridlease bill
beside those of the large clouds. ``focus_rules`` holds what the specification demands of a row.

Source: FOCUS specification 1.2, https://focus.finops.org/focus-specification/v1-2/ (CC BY 4.0).
"""

from __future__ import annotations

import csv
import datetime
import enum
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

Cell = str | None  # None: there is no value, written as an empty cell
Row = Mapping[str, Cell]
NANO_DIGITS = 9
QUANTITY_DIGITS = 15
PROVIDER = "Gridlease"


class Category(enum.StrEnum):
    """What kind of charge it is."""

    USAGE = "Usage"
    PURCHASE = "Purchase"
    TAX = "Tax"
    CREDIT = "Credit"
    ADJUSTMENT = "Adjustment"


class Pricing(enum.StrEnum):
    """How its price came to be: by agreement, by a commitment, or by the platform as it goes."""

    STANDARD = "Standard"
    COMMITTED = "Committed"
    DYNAMIC = "Dynamic"


@dataclass(frozen=True, slots=True)
class Service:
    """What a meter counts, in the specification's families."""

    name: str
    category: str
    subcategory: str
    consumed_unit: str
    priced_unit: str


SERVICES: Mapping[str, Service] = {
    "run": Service("Gridlease Compute", "Compute", "Containers", "Seconds", "Hours"),
    "run_priority": Service("Gridlease Priority", "Compute", "Containers", "Seconds", "Hours"),
    "provision": Service("Gridlease Compute", "Compute", "Containers", "Seconds", "Hours"),
    "commitment": Service("Gridlease Compute", "Compute", "Containers", "Seconds", "Hours"),
    "egress": Service("Gridlease Network", "Networking", "Network Connectivity", "Bytes", "GB"),
    "storage": Service(
        "Gridlease Storage", "Storage", "Other (Storage)", "Byte-Seconds", "GB-Hours"
    ),
    "energy": Service("Gridlease Energy", "Other", "Other (Other)", "Joules", "Kilowatt-Hours"),
}


@dataclass(frozen=True, slots=True)
class Priced:
    """What was priced: a quantity at a unit price. Of taxes, credits and corrections there is none.

    ``quantity``: in the service's priced unit. ``consumed``: as measured, in its consumed unit;
    None of a commitment's unused part.
    """

    sku: str
    price: str  # which entry of the price book
    list_unit_nano: int
    contracted_unit_nano: int
    quantity: Fraction
    consumed: Fraction | None
    category: Pricing


@dataclass(frozen=True, slots=True)
class Commitment:
    """The commitment that a charge drew on, or left unused."""

    id: str
    name: str
    used: bool
    quantity: Fraction


@dataclass(frozen=True, slots=True)
class Charge:
    """One charge of an invoice. Costs: nano-units of the invoice's currency.

    ``billed_nano``: what is to be paid for it, as rounded for the invoice. ``energy_mj``: in
    millijoules, ``carbon_mg``: milligrams of CO2 equivalent; None where not known.
    """

    meter: str
    category: Category
    description: str
    start_ms: int
    end_ms: int
    billed_nano: int
    effective_nano: int
    list_nano: int
    contracted_nano: int
    priced: Priced | None = None
    correction: bool = False  # of a charge that an earlier period's invoice carries
    corrects: str = ""  # that invoice's number and line
    commitment: Commitment | None = None
    lease: str = ""
    job: str = ""
    node: str = ""
    region: str = ""
    energy_mj: int | None = None
    carbon_mg: int | None = None


@dataclass(frozen=True, slots=True)
class Bill:
    """The invoice that the charges are on."""

    number: str
    tenant: str
    project: str
    currency: str
    period_start_ms: int
    period_end_ms: int
    issuer: str = PROVIDER


def row(bill: Bill, charge: Charge) -> dict[str, Cell]:
    """One charge in the specification's columns, and ours with the prefix ``x_``."""
    service = SERVICES[charge.meter]
    return (
        {
            "BilledCost": money(charge.billed_nano),
            "EffectiveCost": money(charge.effective_nano),
            "ListCost": money(charge.list_nano),
            "ContractedCost": money(charge.contracted_nano),
            "BillingAccountId": bill.tenant,
            "BillingAccountName": bill.tenant.rpartition("/")[2],
            "BillingAccountType": "Tenant",
            "BillingCurrency": bill.currency,
            "BillingPeriodStart": moment(bill.period_start_ms),
            "BillingPeriodEnd": moment(bill.period_end_ms),
            "ChargeCategory": charge.category.value,
            "ChargeClass": "Correction" if charge.correction else None,
            "ChargeDescription": charge.description,
            "ChargeFrequency": _frequency(charge),
            "ChargePeriodStart": moment(charge.start_ms),
            "ChargePeriodEnd": moment(charge.end_ms, up=True),
            "InvoiceId": bill.number,
            "InvoiceIssuerName": bill.issuer,
            "ProviderName": PROVIDER,
            "PublisherName": PROVIDER,
            "RegionId": charge.region or None,
            "RegionName": charge.region.rpartition("/")[2] or None,
            "ServiceCategory": service.category,
            "ServiceName": service.name,
            "ServiceSubcategory": service.subcategory,
            "SubAccountId": bill.project or None,
            "SubAccountName": bill.project.rpartition("/")[2] or None,
            "SubAccountType": "Project" if bill.project else None,
            "x_Corrects": charge.corrects or None,
            "x_Meter": charge.meter,
            "x_Node": charge.node or None,
            "x_EnergyKwh": _scaled(charge.energy_mj, 3_600_000_000, 12),
            "x_CarbonGrams": _scaled(charge.carbon_mg, 1_000, 3),
        }
        | _priced(service, charge.priced)
        | _resource(charge)
        | _committed(service, charge.commitment)
    )


def _frequency(charge: Charge) -> str:
    return "Usage-Based" if charge.category is Category.USAGE else "One-Time"


def _priced(service: Service, priced: Priced | None) -> dict[str, Cell]:
    if priced is None:
        names = (
            "ListUnitPrice", "ContractedUnitPrice", "PricingCategory", "PricingQuantity",
            "PricingUnit", "ConsumedQuantity", "ConsumedUnit", "SkuId", "SkuMeter", "SkuPriceId",
        )  # fmt: skip
        return dict.fromkeys(names)
    consumed = priced.consumed
    return {
        "ListUnitPrice": money(priced.list_unit_nano),
        "ContractedUnitPrice": money(priced.contracted_unit_nano),
        "PricingCategory": priced.category.value,
        "PricingQuantity": quantity(priced.quantity),
        "PricingUnit": service.priced_unit,
        "ConsumedQuantity": None if consumed is None else quantity(consumed),
        "ConsumedUnit": None if consumed is None else service.consumed_unit,
        "SkuId": priced.sku,
        "SkuMeter": service.name,
        "SkuPriceId": priced.price,
    }


def _resource(charge: Charge) -> dict[str, Cell]:
    return {
        "ResourceId": charge.lease or None,
        "ResourceName": charge.job or None if charge.lease else None,
        "ResourceType": "Lease" if charge.lease else None,
    }


def _committed(service: Service, commitment: Commitment | None) -> dict[str, Cell]:
    if commitment is None:
        names = ("Category", "Id", "Name", "Quantity", "Status", "Type", "Unit")
        return dict.fromkeys(f"CommitmentDiscount{name}" for name in names)
    return {
        "CommitmentDiscountCategory": "Usage",
        "CommitmentDiscountId": commitment.id,
        "CommitmentDiscountName": commitment.name,
        "CommitmentDiscountQuantity": quantity(commitment.quantity),
        "CommitmentDiscountStatus": "Used" if commitment.used else "Unused",
        "CommitmentDiscountType": "Hourly pot",
        "CommitmentDiscountUnit": service.priced_unit,
    }


def columns() -> tuple[str, ...]:
    """All columns: the specification's by name, ours after them."""
    nothing = Charge("run", Category.CREDIT, "", 0, 0, 0, 0, 0, 0)
    names = row(Bill("", "", "", "", 0, 0), nothing)
    return tuple(sorted(names, key=lambda name: (name.startswith("x_"), name)))


def as_csv(bill: Bill, charges: Iterable[Charge]) -> bytes:
    """The charges as one CSV file (RFC 4180, UTF-8), the same bytes each time."""
    return csv_of(columns(), (row(bill, charge) for charge in charges))


def csv_of(names: Sequence[str], rows: Iterable[Row]) -> bytes:
    """Rows as CSV. A cell that a spreadsheet would run as a formula gets a quote before it."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(names)
    for each in rows:
        writer.writerow([_harmless(each[name]) for name in names])
    return out.getvalue().encode("utf-8")


def _harmless(cell: Cell) -> str:
    text = cell or ""
    number = text.lstrip("-").replace(".", "", 1).isdecimal()
    # Source: OWASP, CSV Injection: =, +, -, @, tab and carriage return begin a formula.
    return f"'{text}" if text[:1] in "=+-@\t\r" and text and not number else text


def money(nano: int) -> str:
    """A cost in units, with all its digits and no more.

    >>> money(-1_500_000_000), money(0), money(1)
    ('-1.5', '0', '0.000000001')
    """
    return _decimal(nano, NANO_DIGITS)


def quantity(value: Fraction) -> str:
    """A quantity to fifteen decimals, half to even.

    >>> quantity(Fraction(1, 3)), quantity(Fraction(5, 2))
    ('0.333333333333333', '2.5')
    """
    return _decimal(round(value * 10**QUANTITY_DIGITS), QUANTITY_DIGITS)


def _scaled(value: int | None, divisor: int, digits: int) -> Cell:
    return None if value is None else _decimal(round(Fraction(value, divisor) * 10**digits), digits)


def _decimal(value: int, digits: int) -> str:
    whole, part = divmod(abs(value), 10**digits)
    tail = f"{part:0{digits}}".rstrip("0")
    return ("-" if value < 0 else "") + str(whole) + (f".{tail}" if tail else "")


def moment(at_ms: int, *, up: bool = False) -> str:
    """A time as the specification writes it; to whole seconds, down or up.

    >>> moment(1_500), moment(1_500, up=True)
    ('1970-01-01T00:00:01Z', '1970-01-01T00:00:02Z')
    """
    seconds = -(-at_ms // 1_000) if up else at_ms // 1_000
    epoch = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    return (epoch + datetime.timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
