"""Egress, storage and energy that a node tells after its lease was final, or ran for nothing."""

from gridlease_billing.contract_ports import NewTariff
from gridlease_billing.domain.grant_row import Phase, Report
from gridlease_billing.domain.meter_price import cost
from gridlease_billing.domain.rating import Step, Tariff
from gridlease_billing.expire import expire
from gridlease_billing.invoice import create_invoice
from gridlease_billing.ports import Scope
from gridlease_billing.tariffs import create_tariff
from gridlease_kernel.ids import RandomIds

from tests.integration.billing.world import PROJECT, SECOND_NS, TENANT, USD, ask

_TIERS = (Step(0, USD), Step(150, USD // 7), Step(1_000, USD // 3))


def told(lease, phase=Phase.STARTING, final=False, **counts):
    counters = {(1, meter): count for meter, count in counts.items()}
    return Report(lease, "s1", phase, final, counters)


async def tariff(world, request_id, meter="egress"):
    new = NewTariff(meter, "", Tariff(_TIERS, 100, 5 * USD), False, None, request_id)
    return await create_tariff(world.books, new)


async def silent(world, lease, **counts):
    """Its node falls silent until it is final by time."""
    await world.authorize(ask(lease))
    await world.settle(told(lease, Phase.KNOWN))
    await world.settle(told(lease, **counts))
    await world.close(lease)
    await world.pass_time(lease, world.terms.late_after_ms + 120_000)
    await expire(world.books, world.terms)


async def bill(world, request_id):
    return await create_invoice(world.books, RandomIds(), Scope(TENANT, PROJECT), request_id)


async def test_late_egress_is_a_correction_and_the_total_is_as_in_order(world):
    made = await tariff(world, "t1")
    await silent(world, "a", run=SECOND_NS, egress=100)
    first = await bill(world, "1")
    await tariff(world, "t2")  # what was in force at its end holds
    for count in (260, 180, 2_000, 2_000):  # in any order, and twice
        await world.settle(told("a", run=SECOND_NS, egress=count, storage=9))
    await world.settle(told("a", Phase.CLEAN, True, run=SECOND_NS, egress=2_000))
    second = await bill(world, "2")
    parts = [it for it in [*first.lines, *second.lines] if it.meter.startswith("egress")]
    lines = [it for it in parts if it.meter == "egress"]
    assert [it.kind for it in lines] == ["USAGE", "CORRECTION", "CORRECTION"]
    assert {it.price_version for it in lines} == {made.version}
    assert sum(it.charged_ns for it in lines) == 2_000
    assert sum(it.amount_nano for it in parts) == cost(made.tariff, 2_000)
    at = 1 + [it.meter for it in first.lines].index("egress")
    assert {it.cites for it in lines[1:]} == {f"{first.head.name}#{at}"}
    owed = await world.pool.fetchval(
        "SELECT sum(e.amount)::int8 FROM entry AS e JOIN journal AS j ON j.id = e.journal"
        " JOIN account AS a ON a.id = e.account WHERE j.kind = 'correction'"
        " AND a.kind = 'receivable'"
    )
    assert owed == -sum(it.amount_nano for it in parts if it.kind == "CORRECTION")


async def test_what_is_first_heard_of_too_late_costs_as_at_its_end(world):
    made = await tariff(world, "t1")
    await silent(world, "a", run=SECOND_NS)
    await bill(world, "1")
    await tariff(world, "t2")
    for count in (120, 400):
        await world.settle(told("a", run=SECOND_NS, egress=count))
    lines = (await bill(world, "2")).lines
    main = [it for it in lines if it.meter == "egress"]
    assert [(it.kind, it.price_version) for it in main] == [("CORRECTION", made.version)] * 2
    assert sum(it.amount_nano for it in lines) == cost(made.tariff, 400)


async def test_what_never_ran_and_sent_is_billed(world):
    made = await tariff(world, "t1")
    await world.authorize(ask("a"))
    for phase in (Phase.KNOWN, Phase.STARTING):
        await world.settle(told("a", phase))
    await world.settle(told("a", Phase.CLEAN, True, egress=300))
    invoice = await bill(world, "1")
    assert invoice.total_nano == cost(made.tariff, 300)


async def test_a_line_counts_what_it_was_charged_from(world):
    """The report that found its lease over counts in the correction, not in the line."""
    await world.authorize(ask("a"))
    await world.settle(told("a", Phase.KNOWN))
    await world.settle(told("a", run=7 * SECOND_NS))
    await world.close("a")
    await world.pass_time("a", world.terms.late_after_ms + 120_000)
    await world.settle(told("a", Phase.CLEAN, True, run=9 * SECOND_NS))
    rows = await world.pool.fetch("SELECT class, counter, charged FROM line ORDER BY class DESC")
    assert [tuple(it) for it in rows] == [
        ("usage", 7 * SECOND_NS, 7 * SECOND_NS),
        ("correction", 9 * SECOND_NS, 2 * SECOND_NS),
    ]
