"""What FOCUS 1.2 demands of a row and of a file, as a table: each MUST that can be seen in them.

A rule that speaks of what a provider offers (negotiated prices, virtual currencies) is decided
here once, for Gridlease: sub accounts, commitments, unit prices and price lists exist; capacity
reservations, virtual currencies and tags do not.
Source: FOCUS specification 1.2, the requirements of each column (CC BY 4.0).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from gridlease_billing.domain.focus import Cell, Row

Check = Callable[[Row], bool]
_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?")
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_CURRENCY = re.compile(r"[A-Z]{3}")
# Costs are kept to 1e-9 and rounded down; a quantity to 1e-15: a product may be off by so much.
_SLACK = Fraction(2, 10**9)

MANDATORY = (
    "BilledCost", "BillingAccountId", "BillingAccountName", "BillingCurrency", "BillingPeriodEnd",
    "BillingPeriodStart", "ChargeCategory", "ChargeClass", "ChargeDescription", "ChargePeriodEnd",
    "ChargePeriodStart", "ContractedCost", "EffectiveCost", "InvoiceIssuerName", "ListCost",
    "PricingQuantity", "PricingUnit", "ProviderName", "PublisherName", "ServiceCategory",
    "ServiceName",
)  # fmt: skip
# Those whose condition Gridlease meets.
CONDITIONAL = (
    "BillingAccountType", "CommitmentDiscountCategory", "CommitmentDiscountId",
    "CommitmentDiscountName", "CommitmentDiscountQuantity", "CommitmentDiscountStatus",
    "CommitmentDiscountType", "CommitmentDiscountUnit", "ConsumedQuantity", "ConsumedUnit",
    "ContractedUnitPrice", "ListUnitPrice", "PricingCategory", "RegionId", "RegionName",
    "ResourceId", "ResourceName", "ResourceType", "SkuId", "SkuMeter", "SkuPriceId",
    "SubAccountId", "SubAccountName", "SubAccountType",
)  # fmt: skip
NEVER_NULL = (
    "BilledCost", "BillingAccountId", "BillingAccountName", "BillingAccountType",
    "BillingCurrency", "BillingPeriodEnd", "BillingPeriodStart", "ChargeCategory",
    "ChargeFrequency", "ChargePeriodEnd", "ChargePeriodStart", "ContractedCost", "EffectiveCost",
    "InvoiceId", "InvoiceIssuerName", "ListCost", "ProviderName", "PublisherName",
    "ServiceCategory", "ServiceName", "ServiceSubcategory",
)  # fmt: skip
DECIMALS = (
    "BilledCost", "CommitmentDiscountQuantity", "ConsumedQuantity", "ContractedCost",
    "ContractedUnitPrice", "EffectiveCost", "ListCost", "ListUnitPrice", "PricingQuantity",
)  # fmt: skip
MOMENTS = ("BillingPeriodEnd", "BillingPeriodStart", "ChargePeriodEnd", "ChargePeriodStart")
ALLOWED: Mapping[str, frozenset[str]] = {
    "ChargeCategory": frozenset({"Usage", "Purchase", "Tax", "Credit", "Adjustment"}),
    "ChargeClass": frozenset({"Correction"}),
    "ChargeFrequency": frozenset({"One-Time", "Recurring", "Usage-Based"}),
    "PricingCategory": frozenset({"Standard", "Dynamic", "Committed", "Other"}),
    "CommitmentDiscountCategory": frozenset({"Spend", "Usage"}),
    "CommitmentDiscountStatus": frozenset({"Used", "Unused"}),
    "ServiceCategory": frozenset(
        {
            "AI and Machine Learning",
            "Analytics",
            "Business Applications",
            "Compute",
            "Databases",
            "Developer Tools",
            "Multicloud",
            "Identity",
            "Integration",
            "Internet of Things",
            "Management and Governance",
            "Media",
            "Migration",
            "Mobile",
            "Networking",
            "Security",
            "Storage",
            "Web",
            "Other",
        }
    ),
}
# One is null exactly where the other is.
TOGETHER = (
    ("BillingAccountId", "BillingAccountType"),
    ("CommitmentDiscountId", "CommitmentDiscountCategory"),
    ("CommitmentDiscountId", "CommitmentDiscountType"),
    ("CommitmentDiscountQuantity", "CommitmentDiscountUnit"),
    ("ConsumedQuantity", "ConsumedUnit"),
    ("PricingQuantity", "PricingUnit"),
    ("RegionId", "RegionName"),
    ("ResourceId", "ResourceType"),
    ("SubAccountId", "SubAccountName"),
    ("SubAccountId", "SubAccountType"),
)
# Null of a tax; not null of usage and purchases that are no corrections.
PRICED = (
    "ListUnitPrice", "ContractedUnitPrice", "PricingCategory", "PricingQuantity", "SkuId",
    "SkuPriceId",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rule:
    """One demand: the column it stands under, what it asks in a few words, and how it is seen."""

    column: str
    asks: str
    holds: Check


def _first_correct(row: Row) -> bool:
    return row["ChargeCategory"] in {"Usage", "Purchase"} and row["ChargeClass"] is None


def _given(name: str) -> Check:
    return lambda row: row[name] is not None


def _is(pattern: re.Pattern[str], name: str) -> Check:
    return lambda row: row[name] is None or pattern.fullmatch(row[name] or "") is not None


def _same(one: str, other: str) -> Check:
    return lambda row: (row[one] is None) == (row[other] is None)


def _within(name: str, allowed: frozenset[str]) -> Check:
    return lambda row: row[name] is None or row[name] in allowed


def _tidy(name: str) -> Check:
    return lambda row: row[name] is None or (row[name] or "").strip() == row[name] != ""


def _product(unit: str, cost: str) -> Check:
    def holds(row: Row) -> bool:
        if row[unit] is None or row["PricingQuantity"] is None or row["ChargeClass"] is not None:
            return True
        found = Fraction(row[unit] or "0") * Fraction(row["PricingQuantity"] or "0")
        return abs(found - Fraction(row[cost] or "0")) <= _SLACK

    return holds


def _consumed(row: Row) -> bool:
    unused = row["CommitmentDiscountStatus"] == "Unused"
    if row["ChargeCategory"] != "Usage" or unused:
        return row["ConsumedQuantity"] is None
    return row["ConsumedQuantity"] is not None or row["ChargeClass"] is not None


def _commitment_quantity(row: Row) -> bool:
    if row["CommitmentDiscountId"] is None:
        return row["CommitmentDiscountQuantity"] is None
    return row["CommitmentDiscountQuantity"] is not None or row["ChargeClass"] is not None


def _status(row: Row) -> bool:
    if row["CommitmentDiscountId"] is None:
        return row["CommitmentDiscountStatus"] is None
    return row["CommitmentDiscountStatus"] is not None or row["ChargeCategory"] != "Usage"


def _credit_costs(row: Row) -> bool:
    if row["ChargeCategory"] != "Credit":
        return True
    return row["EffectiveCost"] == row["BilledCost"] == row["ListCost"] == row["ContractedCost"]


def _unit_price(name: str) -> Check:
    return lambda row: not (row[name] or "").startswith("-")


def _priced(name: str) -> Check:
    def holds(row: Row) -> bool:
        if row["ChargeCategory"] == "Tax":
            return row[name] is None
        return row[name] is not None or not _first_correct(row)

    return holds


def _committed_price(row: Row) -> bool:
    drawn = row["CommitmentDiscountId"] is not None and row["ChargeCategory"] == "Usage"
    return (row["PricingCategory"] == "Committed") == drawn or row["PricingCategory"] is None


def _in_order(start: str, end: str) -> Check:
    return lambda row: (row[start] or "") <= (row[end] or "")


def _rules() -> tuple[Rule, ...]:
    made = [Rule(n, "is not null", _given(n)) for n in NEVER_NULL]
    made += [Rule(n, "is a plain decimal", _is(_NUMBER, n)) for n in DECIMALS]
    made += [Rule(n, "is a UTC time", _is(_MOMENT, n)) for n in MOMENTS]
    made += [Rule(n, "is an allowed value", _within(n, values)) for n, values in ALLOWED.items()]
    made += [Rule(b, f"is null exactly where {a} is", _same(a, b)) for a, b in TOGETHER]
    made += [Rule(n, "is of usage, not of tax", _priced(n)) for n in PRICED]
    texts = sorted({*MANDATORY, *CONDITIONAL, *NEVER_NULL} - {*DECIMALS})
    made += [Rule(n, "is null rather than empty or padded", _tidy(n)) for n in texts]
    return (
        *made,
        Rule("BillingCurrency", "is an ISO 4217 code", _is(_CURRENCY, "BillingCurrency")),
        Rule("ListCost", "is price times quantity", _product("ListUnitPrice", "ListCost")),
        Rule(
            "ContractedCost",
            "is price times quantity",
            _product("ContractedUnitPrice", "ContractedCost"),
        ),
        Rule("ListUnitPrice", "is not negative", _unit_price("ListUnitPrice")),
        Rule("ContractedUnitPrice", "is not negative", _unit_price("ContractedUnitPrice")),
        Rule("ConsumedQuantity", "is of what was used", _consumed),
        Rule("CommitmentDiscountQuantity", "comes with a commitment", _commitment_quantity),
        Rule("CommitmentDiscountStatus", "comes with usage under a commitment", _status),
        Rule("PricingCategory", "is Committed exactly under a commitment", _committed_price),
        Rule("EffectiveCost", "of a credit is what is billed", _credit_costs),
        Rule(
            "ChargeFrequency",
            "of a purchase is not Usage-Based",
            lambda row: row["ChargeCategory"] != "Purchase"
            or row["ChargeFrequency"] != "Usage-Based",
        ),
        Rule("ChargePeriodEnd", "is not before its start",
             _in_order("ChargePeriodStart", "ChargePeriodEnd")),
        Rule("BillingPeriodEnd", "is not before its start",
             _in_order("BillingPeriodStart", "BillingPeriodEnd")),
    )  # fmt: skip


RULES = _rules()


def broken(row: Row) -> list[str]:
    """The demands that a row does not meet, each "column: what it asks"; none = it conforms."""
    missing = [name for name in (*MANDATORY, *CONDITIONAL) if name not in row]
    if missing:
        return [f"{name}: must be present" for name in missing]
    return [f"{rule.column}: {rule.asks}" for rule in RULES if not rule.holds(row)]


def broken_file(rows: Sequence[Row], payable: Mapping[str, Cell]) -> list[str]:
    """What only a whole file shows. ``payable``: what each invoice asks for, as a decimal."""
    found = [trouble for row in rows for trouble in broken(row)]
    found += _one_parent(rows, "ServiceName", "ServiceCategory")
    found += _one_parent(rows, "SkuPriceId", "SkuId")
    for invoice, amount in payable.items():
        billed = sum(
            (Fraction(row["BilledCost"] or "0") for row in rows if row["InvoiceId"] == invoice),
            Fraction(),
        )
        if billed != Fraction(amount or "0"):
            found.append(f"BilledCost: sums to {billed} on {invoice}, which asks for {amount}")
    return found


def _one_parent(rows: Iterable[Row], child: str, parent: str) -> list[str]:
    seen: dict[str, Cell] = {}
    found = []
    for row in rows:
        name = row[child]
        if name is not None and seen.setdefault(name, row[parent]) != row[parent]:
            found.append(f"{child}: {name} has more than one {parent}")
    return found
