"""FOCUS rows: what we write conforms, and each broken demand is named."""

import csv
import io
from fractions import Fraction

import pytest
from gridlease_billing.domain import focus, focus_rules
from gridlease_billing.domain.focus import Bill, Category, Charge, Commitment, Priced, Pricing
from hypothesis import given
from hypothesis import strategies as st

BILL = Bill("GL-2026-000001", "tenants/acme", "projects/vision", "USD", 0, 2_678_400_000)
RATE = 2_690_000_000


def usage(span_ns=1_234_567_891, rate=RATE, **more):
    cost = rate * span_ns // 3_600_000_000_000
    hours = Fraction(span_ns, 3_600_000_000_000)
    priced = Priced(
        "H100/ON_DEMAND", "price/7", rate, rate, hours, Fraction(span_ns, 10**9), Pricing.STANDARD
    )
    known = {"lease": "ls-1", "job": "projects/vision/jobs/train", "region": "sites/berlin"}
    known |= {"priced": priced} | more
    return Charge("run", Category.USAGE, "H100", 0, 1_235, cost, cost, cost, cost, **known)


def changed(**cells):
    return focus.row(BILL, usage()) | cells


def test_what_is_written_conforms():
    assert focus_rules.broken(focus.row(BILL, usage())) == []


@given(st.integers(0, 10**18), st.integers(0, 10**13))
def test_any_span_at_any_rate_conforms(span_ns, rate):
    assert focus_rules.broken(focus.row(BILL, usage(span_ns, rate))) == []


def test_a_tax_a_credit_and_a_correction_conform():
    tax = Charge("run", Category.TAX, "VAT 19 %", 0, 1, 5, 5, 5, 5)
    credit = Charge("run", Category.CREDIT, "Reclaimed", 0, 1, -5, -5, -5, -5, lease="ls-1")
    late = Charge("run", Category.USAGE, "Late", 0, 1, 5, 5, 5, 5, correction=True, corrects="x 3")
    for charge in (tax, credit, late):
        assert focus_rules.broken(focus.row(BILL, charge)) == []


def test_a_commitments_used_and_unused_parts_conform():
    hours = Fraction(1, 2)
    pot = Commitment("commitments/c1", "c1", used=True, quantity=hours)
    used = Priced("H100/RESERVED", "price/8", RATE, RATE, hours, hours * 3600, Pricing.COMMITTED)
    left = Priced("H100/RESERVED", "price/8", RATE, RATE, hours, None, Pricing.COMMITTED)
    cost = RATE // 2
    for priced, of in ((used, pot), (left, Commitment("commitments/c1", "c1", False, hours))):
        charge = Charge(
            "commitment", Category.USAGE, "pot", 0, 1, 0, cost, cost, cost, priced, commitment=of
        )
        assert focus_rules.broken(focus.row(BILL, charge)) == []


@pytest.mark.parametrize(
    ("cells", "named"),
    [
        ({"BilledCost": None}, "BilledCost: is not null"),
        ({"BilledCost": "1,5"}, "BilledCost: is a plain decimal"),
        ({"EffectiveCost": "1e3"}, "EffectiveCost: is a plain decimal"),
        ({"BillingCurrency": "usd"}, "BillingCurrency: is an ISO 4217 code"),
        ({"ChargeCategory": "Rent"}, "ChargeCategory: is an allowed value"),
        ({"ChargeClass": "Late"}, "ChargeClass: is an allowed value"),
        ({"ChargePeriodStart": "2026-01-01"}, "ChargePeriodStart: is a UTC time"),
        ({"ChargePeriodStart": "2099-01-01T00:00:00Z"}, "ChargePeriodEnd: is not before its start"),
        ({"ListCost": "9"}, "ListCost: is price times quantity"),
        ({"ContractedUnitPrice": "3"}, "ContractedCost: is price times quantity"),
        ({"ListUnitPrice": "-1"}, "ListUnitPrice: is not negative"),
        ({"PricingQuantity": None}, "PricingQuantity: is of usage, not of tax"),
        ({"PricingUnit": None}, "PricingUnit: is null exactly where PricingQuantity is"),
        ({"SkuId": None}, "SkuId: is of usage, not of tax"),
        ({"ConsumedQuantity": None}, "ConsumedQuantity: is of what was used"),
        ({"ConsumedUnit": None}, "ConsumedUnit: is null exactly where ConsumedQuantity is"),
        ({"ServiceName": ""}, "ServiceName: is null rather than empty or padded"),
        ({"ServiceCategory": "Rental"}, "ServiceCategory: is an allowed value"),
        ({"RegionName": None}, "RegionName: is null exactly where RegionId is"),
        ({"ResourceType": None}, "ResourceType: is null exactly where ResourceId is"),
        ({"SubAccountName": None}, "SubAccountName: is null exactly where SubAccountId is"),
        ({"CommitmentDiscountId": "c"}, "PricingCategory: is Committed exactly under a commitment"),
        ({"InvoiceId": None}, "InvoiceId: is not null"),
        (
            {"ChargeCategory": "Purchase"},
            "ChargeFrequency: of a purchase is not Usage-Based",
        ),
        (
            {"ChargeCategory": "Credit", "EffectiveCost": "1"},
            "EffectiveCost: of a credit is what is billed",
        ),
    ],
)
def test_a_broken_demand_is_named(cells, named):
    assert named in focus_rules.broken(changed(**cells))


def test_a_missing_column_is_named():
    row = changed()
    del row["ListCost"]
    assert focus_rules.broken(row) == ["ListCost: must be present"]


def test_a_file_says_what_its_invoice_asks_for():
    rows = [focus.row(BILL, usage(span)) for span in (3_600_000_000_000, 1_800_000_000_000)]
    assert focus_rules.broken_file(rows, {BILL.number: "4.035"}) == []
    assert "asks for 4.04" in focus_rules.broken_file(rows, {BILL.number: "4.04"})[0]
    mixed = [changed(), changed(ServiceCategory="Other")]
    assert "more than one ServiceCategory" in focus_rules.broken_file(mixed, {})[0]


def test_a_file_reads_back_as_it_was_and_runs_no_formula():
    hostile = usage(job="=cmd|' /C calc'!A0")
    read = list(csv.DictReader(io.StringIO(focus.as_csv(BILL, [usage(), hostile]).decode())))
    assert [tuple(each) for each in read] == [focus.columns()] * 2
    assert read[0]["ResourceName"] == "projects/vision/jobs/train"
    assert read[1]["ResourceName"].startswith("'=")
    assert read[0]["ChargeClass"] == ""
    credit = Charge("run", Category.CREDIT, "back", 0, 1, -5, -5, -5, -5)
    row = next(csv.DictReader(io.StringIO(focus.as_csv(BILL, [credit]).decode())))
    assert row["BilledCost"] == "-0.000000005"
