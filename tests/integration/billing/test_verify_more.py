"""verify-bill on a bill with tiers, a priority, pots and tax; and its forgeries."""

import copy

import pytest
from gridlease_billing.commitments import HOUR_MS, bill_hours
from gridlease_billing.contract_ports import Bought, NewTariff
from gridlease_billing.domain.commitment import Commitment
from gridlease_billing.domain.priority import Band, NewPriorityTable
from gridlease_billing.domain.rating import Step, Tariff
from gridlease_billing.prices import create_priorities
from gridlease_billing.tariffs import create_tariff
from gridlease_verify import bill as verifier
from gridlease_verify.bill import Trust

from tests.integration.billing.test_documents import bill, german
from tests.integration.billing.test_metering import Pen
from tests.integration.billing.test_verify import (
    CENT,
    balanced,
    billed,
    check,
    evidence_of,
    line_of,
    ran,
)
from tests.integration.billing.world import PROJECT, SECOND_NS, TENANT, TERMS, USD

__all__ = ["billed"]  # a fixture


@pytest.fixture
async def rich(world):
    """The evidence of a bill with tiers, a priority, capacity bought ahead, and tax."""
    pen = Pen()
    await german(world)
    steps = (Step(0, 0), Step(15, 3 * CENT), Step(25, CENT))
    await create_tariff(
        world.books, NewTariff("egress", "", Tariff(steps, 7), False, None, "egress")
    )
    bands = (Band(0, 800), Band(50, 1_500))
    await create_priorities(world.books, NewPriorityTable(bands, None, "bands"))
    await world.price(4 * USD, "reserved", tier="RESERVED")
    version = await world.pool.fetchval("SELECT version FROM price WHERE tier = 'RESERVED'")
    now_ms = await world.pool.fetchval("SELECT (extract(epoch FROM now()) * 1000)::int8")
    starts_ms = now_ms // HOUR_MS * HOUR_MS - 4 * HOUR_MS
    pot = Commitment(
        "commitments/c1", TENANT, "H100-80GB", 500, starts_ms, starts_ms + 2 * HOUR_MS, 2 * USD
    )

    async def insert(tx):
        await tx.commitments.insert(Bought(pot, PROJECT, "past"), version, starts_ms)

    await world.books.run(insert)
    await ran(world, pen, "a", 20_345_678_901, priority=70)
    await ran(world, pen, "b", 31_000_000_001, quantity_milli=333, priority=70)
    for lease in ("a", "b"):
        await world.pass_time(lease, now_ms - starts_ms)
    await world.pool.execute("UPDATE lease SET opened_ms = $1", starts_ms)
    while await bill_hours(world.books):
        pass
    evidence = await evidence_of(world, await bill(world))
    evidence["jobs"] = {f"{PROJECT}/jobs/j": 70}
    return evidence


def by_note(evidence, note):
    return next(it for it in evidence["invoice"]["lines"] if it["note"].startswith(note))


def _tier(evidence):
    line = next(it for it in evidence["invoice"]["lines"] if it["meter"] == "egress" and (
        it["amount_nano"]))  # fmt: skip
    line["amount_nano"] += 1
    balanced(evidence)


def _tariff_version(evidence):
    for it in evidence["tariffs"]:
        it["steps"][1]["price_nano"] += 7


def _pot_used(evidence):
    used, unused = by_note(evidence, "used"), by_note(evidence, "unused")
    used["amount_nano"], unused["amount_nano"] = unused["amount_nano"], used["amount_nano"]
    balanced(evidence)


def _pot_longer(evidence):
    by_note(evidence, "unused")["amount_nano"] += 2 * USD
    balanced(evidence)


def _cover_less(evidence):
    by_note(evidence, "commitment_cover")["amount_nano"] += CENT
    balanced(evidence)


def _draw_less(evidence):
    evidence["draws"][0]["rate_nano_per_hour"] -= USD


def _surcharge(evidence):
    line = line_of(evidence, meter="run_priority")
    line["rate_nano_per_hour"] += USD
    balanced(evidence)


def _multiplier(evidence):
    for it in evidence["priorities"]:
        it["bands"][-1]["permille"] = 1_400


def _grant(evidence):
    line = line_of(evidence)
    line["ends_ms"] -= 50_000
    line["granted_ns"] -= 50 * SECOND_NS


def _tax(evidence):
    evidence["invoice"]["tax"]["permyriad"] = 2_100
    balanced(evidence)


def _reverse(evidence):
    evidence["invoice"]["buyer"]["country"] = "FR"
    evidence["invoice"]["buyer"]["tax_id"] = "FR1"


def _rate_table(evidence):
    evidence["taxes"] = [it for it in evidence["taxes"] if it["country"] != "DE"]


RICH = {
    _tier: "by tariff",
    _tariff_version: "by tariff",
    _pot_used: "by hours and draws",
    _pot_longer: "by hours and draws",
    _cover_less: "by draws",
    _draw_less: "at another rate than it was charged",
    _surcharge: "its surcharge is",
    _multiplier: "its surcharge is",
    _grant: "due are",
    _tax: "its tax is STANDARD 2100",
    _reverse: "by both parties REVERSE_CHARGE",
    _rate_table: "by the table of DE None",
}


async def test_it_agrees_with_a_rich_bill_and_finds_what_was_forged_of_it(rich):
    found = verifier.examine(rich, Trust(ahead_ms=TERMS.ahead_ms))
    assert [it for it in found if it.wrong] == []
    kinds = {(it["kind"], it["meter"]) for it in rich["invoice"]["lines"]}
    assert kinds >= {
        ("USAGE", "run_priority"), ("USAGE", "egress"), ("PURCHASE", "commitment"),
        ("CREDIT", "cover"),
    }  # fmt: skip
    for forge, named in RICH.items():
        forged = copy.deepcopy(rich)
        forge(forged)
        told = [it.what for it in check(forged)]
        assert any(named in it for it in told), (forge.__name__, told)


async def test_what_cannot_be_checked_is_said_and_counted(rich, billed):
    for name, why in (("jobs", "the priority of its job"), ("taxes", "no table of taxes")):
        poor = copy.deepcopy(rich)
        del poor[name]
        found = verifier.examine(poor, Trust(ahead_ms=TERMS.ahead_ms))
        assert not [it for it in found if it.wrong]
        assert any(why in it.what for it in found)
    evidence, _ = billed
    unsigned = {**evidence, "reports": []}
    found = verifier.examine(unsigned, Trust(unsigned=True))
    runs = {it["position"] for it in evidence["invoice"]["lines"] if it["kind"] == "USAGE"}
    assert {it.line for it in found if "has signed nothing" in it.what} == runs


def test_usage_is_judged_without_what_was_told_later():
    """An earlier segment that counts more, too late, leaves the next one less: by a correction."""
    counts = (
        # segment, from, to, counter, before, charged, when it was written
        (1, 0, 60, 55, 0, 55, ""),
        (2, 50, 100, 45, 0, 45, ""),
        (1, 0, 60, 60, 55, 5, "correction/700"),
        (2, 50, 100, 45, 45, -5, "correction/700"),
    )
    common = {
        "lease": "a", "meter": "run", "rate_nano_per_hour": 3_600 * 10**9, "price_version": 1,
        "chip": "H100", "tier": "SPOT", "site": "", "node": "n", "quantity_milli": 1_000,
        "opened_ms": 0,
    }  # fmt: skip
    lines = [
        common | {
            "position": n, "segment": segment, "kind": "CORRECTION" if when else "USAGE",
            "cites": f"iv#{segment}" if when else "", "source": f"line/a/{segment}/run/{when}",
            "starts_ms": begins * 1_000, "ends_ms": ends * 1_000,
            "granted_ns": (ends - begins) * 10**9, "counter_ns": counter * 10**9,
            "before": before * 10**9, "charged_ns": charged * 10**9,
            "amount_nano": charged * 10**9,
        }
        for n, (segment, begins, ends, counter, before, charged, when) in enumerate(counts, start=1)
    ]  # fmt: skip
    price = {"version": 1, "chip": "H100", "tier": 3, "price_nano_per_hour": 3_600 * 10**9,
             "effective_ms": 0}  # fmt: skip
    evidence = {"invoice": {"name": "iv", "lines": lines}, "reports": [], "prices": [price]}
    bill = verifier._Bill(evidence, Trust(unsigned=True))
    wrong = [it for it in bill.lines() if not isinstance(it[1], verifier.Unchecked)]
    assert wrong == []
    lines[3]["charged_ns"], lines[3]["amount_nano"] = -4 * 10**9, -4 * 10**9
    wrong = [it for it in bill.lines() if not isinstance(it[1], verifier.Unchecked)]
    assert [at for at, _ in wrong] == [4]
