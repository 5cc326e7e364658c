"""Energy, carbon and cost as people read them."""

from gridlease.type.v1 import contract_pb2, money_pb2, report_pb2
from gridlease_cli import costs, energy
from gridlease_cli.invoices import _told

KWH = 3_600_000_000


def test_a_tilde_marks_what_is_estimated_and_a_dash_what_is_not_known():
    use = contract_pb2.EnergyUse(basis="ESTIMATED", energy_mj=KWH // 2)
    assert energy.used(use) == ("~0.5 kWh", "-")
    use.basis, use.known_carbon, use.operational_mg, use.embodied_mg = "METERED", True, 1_000, 250
    assert energy.used(use) == ("0.5 kWh", "1.25 g")
    assert energy.used(contract_pb2.EnergyUse()) == ("-", "-")


def test_a_quote_is_told_by_the_hour_with_its_bounds():
    use = contract_pb2.EnergyUse(
        basis="ESTIMATED", site="sites/a", energy_mj=2 * KWH, energy_low_mj=KWH,
        energy_high_mj=4 * KWH, known_carbon=True, operational_mg=800_000,
        operational_low_mg=400_000, operational_high_mg=1_600_000, embodied_mg=10_000,
        embodied_uncertainty_permille=500, embodied_source="a study",
    )  # fmt: skip
    quote = money_pb2.Quote(duration_ms=7_200_000, uses=[use])
    assert list(energy.expected(quote)) == [
        "energy    1 kWh an hour (0.5 to 2), estimated at sites/a",
        "carbon    400 g CO2e an hour (200 to 800) by the grid",
        "          5 g CO2e an hour of manufacture, give or take 50 %",
    ]


def test_an_invoice_tells_it_without_an_amount():
    line = money_pb2.UsageLine(
        kind="INFORMATION", lease="l1", meter="carbon", counter_ns=1_500, note="metered; 400 g/kWh"
    )
    lines = list(_told(money_pb2.Invoice(lines=[line])))
    assert "    1  l1: CO2e of the grid 1.5 g (metered; 400 g/kWh)" in lines


def test_cost_says_what_ends_first():
    cost = report_pb2.JobCost(
        charged_nano=3_000_000_000, credited_nano=1_000_000_000, currency="USD",
        lasts_ms=5_430_000, lasts_by="BALANCE", ended_count=2,
        leases=[{"lease": "l1", "chip": "T4", "quantity_milli": 500, "state": "OPEN"}],
    )  # fmt: skip
    lines = list(costs.lines(cost))
    assert lines[0] == "cost      2.00 USD so far"
    assert "lasts     1h30m30s at most, by the balance" in lines
    assert any(it.startswith("lease     l1: 0.5 x T4, OPEN") for it in lines)
    assert lines[-1] == "ended     2 leases"
    assert "lasts     nothing runs" in list(costs.lines(report_pb2.JobCost()))
