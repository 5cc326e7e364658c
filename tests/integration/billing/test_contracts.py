"""Capacity bought ahead, prices beyond run time, other currencies, energy and carbon."""

from dataclasses import replace

import pytest
from gridlease_billing.commitments import HOUR_MS, Wish, bill_hours, buy, list_commitments
from gridlease_billing.contract_ports import Bought, NewTariff
from gridlease_billing.domain.carbon import Embodied, SitePower, footprint
from gridlease_billing.domain.grant_row import Phase, Report
from gridlease_billing.domain.meter_price import cost
from gridlease_billing.domain.priority import Band, NewPriorityTable
from gridlease_billing.domain.rating import Step, Tariff
from gridlease_billing.exchange import Foreign, pay_in_foreign
from gridlease_billing.footprints import list_footprints, put_embodied
from gridlease_billing.prices import create_priorities
from gridlease_billing.tariffs import create_tariff, list_tariffs
from gridlease_kernel.faults import Invalid
from gridlease_kernel.ids import RandomIds

from tests.integration.billing.world import CHIP, PRICE, PROJECT, SECOND_NS, TENANT, USD, ask

GIB = 2**30
_POSTED = """
SELECT a.kind, sum(e.amount)::int8 AS amount FROM entry e JOIN account a ON a.id = e.account
JOIN journal j ON j.id = e.journal AND j.recorded_ms = e.recorded_ms
WHERE j.kind = $1 GROUP BY a.kind
"""


async def posted(world, kind):
    return {it["kind"]: it["amount"] for it in await world.pool.fetch(_POSTED, kind)}


def told(lease, phase=Phase.STARTING, final=False, **counts):
    counters = {(1, meter): count for meter, count in counts.items() if count}
    return Report(lease, "s1", phase, final, counters)


async def ran(world, lease, ask_more=None, **counts):
    await world.authorize(ask(lease, **(ask_more or {})))
    for phase in (Phase.KNOWN, Phase.STARTING):
        await world.settle(told(lease, phase))
    await world.settle(told(lease, Phase.CLEAN, final=True, **counts))


# Payments in another currency


@pytest.mark.parametrize(
    ("paid", "rate", "credited"),
    [
        (100 * USD, (10_837, 10_000), 108_370_000_000),
        (1_000_000_001, (1, 3), 333_333_333),
        (7, (149_53, 1_00), 1_046),
        (999_999_999_999_999_999, (1, 999_999_999_999_999), 1_000),
    ],
)
async def test_a_payment_is_two_balanced_journals_and_an_exact_rate(world, paid, rate, credited):
    foreign = Foreign(TENANT, paid, "EUR", *rate, "ECB 2026-11-20", "r1")
    before = (await world.balance()).posted_nano
    for _ in range(2):
        made, wallet = await pay_in_foreign(world.books, foreign)
        assert made.credited_nano == credited
        assert wallet.posted_nano == before + credited
    (row,) = await world.pool.fetch("SELECT * FROM exchange")
    assert (row["rate_numerator"], row["rate_denominator"]) == rate
    assert credited * rate[1] <= paid * rate[0] < (credited + 1) * rate[1]
    for journal, currency in ((row["from_journal"], "EUR"), (row["to_journal"], "USD")):
        sides = await world.pool.fetch(
            "SELECT amount, currency FROM entry JOIN account ON account.id = account"
            " WHERE journal = $1",
            journal,
        )
        assert sum(it["amount"] for it in sides) == 0
        assert {it["currency"] for it in sides} == {currency}


async def test_payments_that_cannot_be_exchanged_are_refused(world):
    good = Foreign(TENANT, USD, "EUR", 11, 10, "", "r1")
    for change, reason in (
        ({"currency": "USD"}, "SAME_CURRENCY"),
        ({"currency": "XTS"}, "UNKNOWN_CURRENCY"),
        ({"amount_nano": 1, "numerator": 1, "denominator": 2}, "AMOUNT_TOO_SMALL"),
        ({"amount_nano": 10**18, "numerator": 10**9, "denominator": 1}, "AMOUNT_TOO_LARGE"),
    ):
        with pytest.raises(Invalid) as refused:
            await pay_in_foreign(world.books, replace(good, **change))
        assert refused.value.reason == reason
    await pay_in_foreign(world.books, good)
    with pytest.raises(Invalid) as reused:
        await pay_in_foreign(world.books, replace(good, numerator=12))
    assert reused.value.reason == "REQUEST_ID_REUSED"


# Meters beyond run time


def egress(steps, per=GIB, minimum=0, **more):
    given = {"site": "", "pass_through": False, "effective_ms": None, "request_id": "t1"}
    return NewTariff("egress", tariff=Tariff(steps, per, minimum), **{**given, **more})


async def test_egress_is_charged_by_the_months_total_however_it_is_sliced(world):
    tiers = (Step(0, 0), Step(GIB, USD // 10), Step(3 * GIB, USD // 20))
    made = await create_tariff(world.books, egress(tiers, minimum=USD // 4))
    assert await create_tariff(world.books, egress(tiers, minimum=USD // 4)) == made
    slices = [GIB // 3, GIB + 1, 3 * GIB // 2, GIB // 7, 2 * GIB]
    for at, count in enumerate(slices):
        await ran(world, f"l{at}", run=SECOND_NS, egress=count)
    whole = cost(made.tariff, sum(slices))
    sides = await posted(world, "meter_charge")
    assert sides == {"tenant_prepaid": -whole, "revenue": whole}
    lines = await world.pool.fetch("SELECT * FROM line WHERE meter = 'egress' ORDER BY lease")
    assert [it["charged"] for it in lines] == slices
    assert sum(it["amount_nano"] for it in lines) == whole
    assert {it["price_version"] for it in lines} == {made.version}
    assert lines[0]["amount_nano"] == USD // 4, "the minimum comes with the first use"
    shown = {}
    for it, _, _ in await world.usage():
        if it.meter.startswith("egress"):
            shown.setdefault(it.meter, {})[it.lease] = it
    assert sum(it.amount_nano for each in shown.values() for it in each.values()) == whole
    assert {lease: it.charged_ns for lease, it in shown["egress_free"].items()} == {
        "l0": GIB // 3,
        "l1": GIB - GIB // 3,
    }
    extra = {lease: it.amount_nano for lease, it in shown["egress_minimum"].items()}
    assert extra["l0"] == USD // 4
    assert min(extra.values()) < 0, "what the steps come to is set off against it"
    assert sum(extra.values()) == 0, "the month came to more than its minimum"


async def test_what_the_prepaid_credit_does_not_cover_is_receivable(world):
    await create_tariff(world.books, egress((Step(0, 1_000 * USD),)))
    await ran(world, "a", run=SECOND_NS, egress=GIB)
    left = (await world.balance()).posted_nano
    sides = await posted(world, "meter_charge")
    assert left == 0
    assert sides["revenue"] == 1_000 * USD
    assert sides["receivable"] + sides["tenant_prepaid"] == -1_000 * USD
    assert sides["receivable"] < 0


async def test_without_a_tariff_nothing_is_written_or_charged(world):
    await ran(world, "a", run=SECOND_NS, egress=GIB, energy=5)
    assert not await posted(world, "meter_charge")


async def test_tariffs_are_refused_in_the_past_and_for_provisioning(world):
    for new, reason in (
        (egress((Step(0, 1),), effective_ms=1), "PRICE_IN_THE_PAST"),
        (replace(egress((Step(0, 1),)), meter="provision"), "PROVISION_IS_FREE"),
    ):
        with pytest.raises(Invalid) as refused:
            await create_tariff(world.books, new)
        assert refused.value.reason == reason
    await create_tariff(world.books, egress((Step(0, 1),)))
    with pytest.raises(Invalid) as reused:
        await create_tariff(world.books, egress((Step(0, 2),)))
    assert reused.value.reason == "REQUEST_ID_REUSED"
    own = egress((Step(0, 5),), site="sites/a", request_id="t2")
    await create_tariff(world.books, own)
    assert [it.site for it in await list_tariffs(world.books)] == ["", "sites/a"]


# Energy and carbon

POWER = SitePower(1_250, tuple(range(100_000, 124_000, 1_000)), (300_000_000,))
KWH = 3_600_000_000  # mJ


async def test_energy_is_told_with_its_carbon_and_passed_on_at_the_sites_price(world):
    through = NewTariff("energy", "", Tariff((Step(0, 0),), 1), True, None, "t1")
    await create_tariff(world.books, through)
    await put_embodied(world.books, CHIP, Embodied(150_000, 35_000, 300, "a study"), "e1")
    await ran(world, "a", {"site": "sites/a", "power": POWER}, run=SECOND_NS, energy=2 * KWH)
    await ran(world, "b", {"site": "sites/b"}, run=SECOND_NS, energy=KWH)
    found = {it.drew.of.lease: it for it in await list_footprints(world.books, TENANT, "", 10)}
    told_a = found["a"].footprint
    assert (told_a.device_mj, told_a.site_mj) == (2 * KWH, 2 * KWH * 1_250 // 1_000)
    (_, starts_ms, span_ms) = found["a"].drew.segments[0]
    exact = footprint(2 * KWH, starts_ms, span_ms, POWER)
    assert told_a.operational_mg == exact.operational_mg
    assert told_a.embodied_mg == 1  # 150 kg over 35,000 h: 1.19 mg in a second
    assert found["a"].drew.embodied.source == "a study"
    assert found["b"].footprint.operational_mg is None, "what is not known is not zero"
    price = 2 * 300_000_000 * 1_250 // 1_000
    assert await posted(world, "meter_charge") == {"tenant_prepaid": -price, "revenue": price}


async def test_a_sites_power_is_kept_once_for_each_state(world):
    other = replace(POWER, pue_milli=1_300)
    for at, power in enumerate((POWER, POWER, other, None)):
        await world.authorize(ask(f"l{at}", site="sites/a", power=power))
    assert await world.pool.fetchval("SELECT count(*) FROM site_power") == 2
    rows = await world.pool.fetch("SELECT power FROM lease ORDER BY id")
    assert rows[0] == rows[1] != rows[2]
    assert rows[3]["power"] == 0


# Capacity bought ahead


async def now_ms(world):
    return await world.pool.fetchval("SELECT floor(extract(epoch FROM now()) * 1000)::int8")


async def wish(world, **more):
    hour = await now_ms(world) // HOUR_MS * HOUR_MS
    given = {
        "tenant": TENANT, "project": PROJECT, "chip": CHIP, "site": "", "quantity_milli": 2_000,
        "starts_ms": hour, "ends_ms": hour + 3 * HOUR_MS, "request_id": "r1",
    }  # fmt: skip
    return Wish(**{**given, **more})


async def test_a_commitment_is_bought_once_at_the_reserved_price(world):
    await world.price(20 * USD, "reserved", tier="RESERVED")
    wanted = await wish(world)
    first = await buy(world.books, RandomIds(), wanted)
    assert first.bought.pot.rate_nano_per_hour == 40 * USD
    await world.price(30 * USD, "dearer", tier="RESERVED")
    assert await buy(world.books, RandomIds(), wanted) == first
    assert await list_commitments(world.books, TENANT) == [first]
    for change, reason in (
        ({"starts_ms": wanted.starts_ms + 1, "request_id": "x"}, "NOT_WHOLE_HOURS"),
        ({"starts_ms": 0, "request_id": "x"}, "PERIOD_TOO_LONG"),
        (
            {"starts_ms": wanted.starts_ms - HOUR_MS, "request_id": "x"},
            "PERIOD_IN_THE_PAST",
        ),
        ({"chip": "none", "request_id": "x"}, "NO_PRICE"),
        ({"quantity_milli": 1}, "REQUEST_ID_REUSED"),
    ):
        with pytest.raises(Invalid) as refused:
            await buy(world.books, RandomIds(), replace(wanted, **change))
        assert refused.value.reason == reason


@pytest.mark.parametrize("permille", [1_000, 800])
async def test_an_hour_costs_its_pot_and_gives_back_what_the_pot_covers(world, permille):
    """2 devices for 3 hours, of which one runs for an hour and a half of seconds.

    Usage that a low priority made cheaper gives back what it was charged, not more.
    """
    table = NewPriorityTable((Band(0, permille),), None, "priorities")
    await create_priorities(world.books, table)
    await world.price(20 * USD, "reserved", tier="RESERVED")
    bought = await buy(world.books, RandomIds(), await wish(world))
    pot = replace(
        bought.bought.pot,
        id="commitments/past",
        starts_ms=bought.bought.pot.starts_ms - 4 * HOUR_MS,
        ends_ms=bought.bought.pot.starts_ms - HOUR_MS,
    )

    async def insert(tx):
        await tx.commitments.insert(Bought(pot, PROJECT, "past"), 1, pot.starts_ms)

    await world.books.run(insert)
    seconds = 50
    await world.authorize(ask("a"))
    for phase in (Phase.KNOWN, Phase.STARTING):
        await world.settle(told("a", phase))
    await world.settle(told("a", Phase.CLEAN, final=True, run=seconds * SECOND_NS))
    late_ms = await world.pool.fetchval("SELECT starts_ms FROM segment") - pot.starts_ms
    async with world.pool.acquire() as db:  # it ran across the end of the first hour
        await world.pass_time("a", late_ms - HOUR_MS + 20_000)
        await db.execute("UPDATE lease SET opened_ms = opened_ms - $1::int8", late_ms)
    before = (await world.balance()).posted_nano
    assert [await bill_hours(world.books) for _ in range(4)] == [1, 1, 1, 0]
    (past,) = [it for it in await list_commitments(world.books, TENANT) if it.hours]
    assert (past.hours, past.fee_nano) == (3, 3 * 40 * USD)
    assert past.used_milli_ns == seconds * SECOND_NS * 1_000
    charged = seconds * (PRICE * permille // 1_000 // 3_600)
    assert charged == (await posted(world, "charge"))["revenue"]
    assert past.cover_nano == charged, "all of it had been charged, and is back"
    hours = await world.pool.fetch("SELECT * FROM commitment_hour ORDER BY hour_ms")
    assert [it["used_milli_ns"] // SECOND_NS for it in hours] == [20_000, 30_000, 0]
    fees = await posted(world, "commitment_fee")
    assert fees["revenue"] == past.fee_nano
    spent = before - (await world.balance()).posted_nano
    assert spent - fees.get("receivable", 0) == past.fee_nano - past.cover_nano
