"""Energy and carbon on usage, quotes and invoices, from a real PostgreSQL's books."""

from dataclasses import replace

import asyncpg
import pytest
from gridlease.billing.v1 import account_pb2
from gridlease.type.v1 import contract_pb2
from gridlease_billing.domain.carbon import Embodied, SitePower
from gridlease_billing.domain.energy_use import Basis, Draw
from gridlease_billing.domain.grant_row import Phase, Report
from gridlease_billing.domain.invoice import as_json
from gridlease_billing.footprints import (
    DrawKeeper,
    Plan,
    expect,
    list_footprints,
    put_embodied,
    traces,
)
from gridlease_billing.invoice import create_invoice, finalize_invoice, get_invoice, replayed
from gridlease_billing.ports import Scope
from gridlease_billing.rpc import energy_shapes
from gridlease_kernel.ids import RandomIds

from tests.integration.billing.world import CHIP, PROJECT, SECOND_NS, TENANT, ask

POWER = SitePower(1_250, (400_000,))
DRAW = Draw(100_000, 700_000, "a data sheet", Embodied(164_000, 35_040, 500, "a summary"))
KWH = 3_600_000_000
INFORMATION = ("site_energy", "carbon", "embodied")


async def ran(world, lease, *, seconds=30, energy=0, **more):
    given = {"site": "sites/a", "power": POWER, **more}
    await world.authorize(ask(lease, **given))
    for phase in (Phase.KNOWN, Phase.STARTING):
        await world.settle(Report(lease, "s1", phase, False, {}))
    counters = {(1, "run"): seconds * SECOND_NS}
    if energy:
        counters[1, "energy"] = energy
    await world.settle(Report(lease, "s1", Phase.CLEAN, True, counters))


def told(invoice, lease):
    return {it.meter: it for it in invoice.lines if it.lease == lease and it.kind == "INFORMATION"}


async def bill(world, request_id="r1", **more):
    return await create_invoice(
        world.books, RandomIds(), Scope(TENANT, PROJECT), request_id, **more
    )


async def test_an_invoice_tells_what_was_metered_and_estimates_the_rest(world):
    await DrawKeeper(world.books).keep({CHIP: DRAW})
    await ran(world, "metered", energy=KWH)
    await ran(world, "guessed")
    invoice = await bill(world)
    first, second = told(invoice, "metered"), told(invoice, "guessed")
    assert first["site_energy"].charged_ns == KWH * 1_250 // 1_000
    assert first["site_energy"].note == "metered; PUE 1.25"
    assert first["carbon"].charged_ns == 500_000
    assert first["carbon"].note == "metered; 400 g/kWh"
    least, expected, most = (watts * 30 * 1_000 * 1_250 // 1_000 for watts in (100, 400, 700))
    assert second["site_energy"].charged_ns == expected
    assert second["site_energy"].note.startswith("estimated; ")
    assert second["site_energy"].note.endswith("kWh; PUE 1.25; a data sheet")
    row = await world.pool.fetchrow("SELECT * FROM footprint WHERE lease = 'guessed'")
    assert row["energy_mj"] == [expected, least, most]
    assert (row["pue_milli"], row["carbon_mg_per_kwh"]) == (1_250, [400_000])
    assert second["embodied"].charged_ns == 164_000_000 * 30_000 // (35_040 * 3_600_000)
    assert second["embodied"].note == "±50 %; 164000 g / 4 a; a summary"
    assert sum(it.amount_nano for it in invoice.lines) == invoice.total_nano == 2 * 300_000_000
    await world.check()


async def test_what_an_invoice_told_is_never_computed_anew(world):
    await DrawKeeper(world.books).keep({CHIP: DRAW})
    await ran(world, "a")
    draft = await bill(world, draft=True)
    before = [it for it in draft.lines if it.kind == "INFORMATION"]
    await DrawKeeper(world.books).keep({CHIP: replace(DRAW, peak_mw=900_000)})
    await put_embodied(world.books, CHIP, Embodied(1, 1, 0, "another study"), "e1")
    final = await finalize_invoice(world.books, TENANT, draft.head.name)
    assert [it for it in final.lines if it.kind == "INFORMATION"] == before
    again = await get_invoice(world.books, TENANT, draft.head.name)
    assert as_json(again) == as_json(final)
    assert await replayed(world.books, TENANT, draft.head.name) == final
    for statement in ("UPDATE footprint SET number = 2", "DELETE FROM chip_power"):
        with pytest.raises(asyncpg.PostgresError):
            await world.pool.execute(statement)


async def test_late_usage_tells_of_what_it_adds_and_no_more(world):
    await DrawKeeper(world.books).keep({CHIP: DRAW})
    await ran(world, "a", seconds=10)
    await ran(world, "whole", seconds=30)
    first = await bill(world)
    await world.settle(Report("a", "s1", Phase.CLEAN, True, {(1, "run"): 30 * SECOND_NS}))
    second = await bill(world, "r2")
    assert {it.kind for it in second.lines} == {"CORRECTION", "INFORMATION"}
    for meter in INFORMATION:
        parts = [told(it, "a")[meter].charged_ns for it in (first, second)]
        assert sum(parts) == told(first, "whole")[meter].charged_ns
    assert await replayed(world.books, TENANT, second.head.name) == second
    sources = [it.source for invoice in (first, second) for it in invoice.lines]
    assert len(set(sources)) == len(sources)


async def test_energy_that_was_metered_late_is_told_too(world):
    await ran(world, "a", energy=KWH)
    first = await bill(world)
    counters = {(1, "run"): 40 * SECOND_NS, (1, "energy"): 3 * KWH}
    await world.settle(Report("a", "s1", Phase.CLEAN, True, counters))
    second = await bill(world, "r2")
    assert told(second, "a")["site_energy"].charged_ns == 2 * KWH * 1_250 // 1_000
    assert told(first, "a")["carbon"].charged_ns * 2 == told(second, "a")["carbon"].charged_ns


async def test_what_is_not_known_is_not_told(world):
    await ran(world, "a", power=None)
    await ran(world, "b", power=None, energy=KWH)
    invoice = await bill(world)
    assert {it.kind for it in invoice.lines} == {"USAGE"}


async def test_usage_and_footprints_say_the_same_line_by_line(world):
    await DrawKeeper(world.books).keep({CHIP: DRAW})
    await ran(world, "a")
    await ran(world, "b", energy=KWH)
    found = await traces(world.books, TENANT, ["a", "b"])
    listed = {it.drew.of.lease: it for it in await list_footprints(world.books, TENANT, "", 10)}
    assert found == listed
    assert (found["a"].use.basis, found["b"].use.basis) == (Basis.ESTIMATED, Basis.METERED)
    use = energy_shapes.traced(found["a"], 1)
    assert use == energy_shapes.traced(found["a"])
    assert (use.basis, use.source, use.site) == ("ESTIMATED", "a data sheet", "sites/a")
    assert use.energy_low_mj < use.energy_mj < use.energy_high_mj
    assert not await traces(world.books, "tenants/other", ["a", "b"]), "another tenant's"


async def test_a_figure_is_written_once_however_often_it_is_told(world):
    for _ in range(2):
        keeper = DrawKeeper(world.books)
        for _ in range(2):
            await keeper.keep({CHIP: DRAW, "other": Draw(0, 1)})
    assert await world.pool.fetchval("SELECT count(*) FROM chip_power") == 2
    await keeper.keep({CHIP: replace(DRAW, idle_mw=1)})
    assert await world.pool.fetchval("SELECT count(*) FROM chip_power") == 3


async def test_a_quote_tells_what_to_expect_at_each_site(world):
    request = account_pb2.GetQuoteRequest(
        chip=CHIP,
        quantity_milli=2_000,
        duration_ms=3_600_000,
        power=contract_pb2.ChipPower(
            chip=CHIP,
            idle_mw=100_000,
            peak_mw=700_000,
            source="a data sheet",
            embodied={"carbon_g": 164_000, "uncertainty_permille": 500, "source": "a summary"},
        ),
        sites=[
            {"site": "sites/a", "pue_milli": 1_250, "carbon_mg_per_kwh": [400_000]},
            {"site": "sites/b", "pue_milli": 1_100},
        ],
    )
    plan = energy_shapes.plan(request)
    here, there = [
        energy_shapes.expected(it, plan.draw.source) for it in await expect(world.books, plan)
    ]
    assert (here.basis, here.site) == ("ESTIMATED", "sites/a")
    assert (here.energy_low_mj, here.energy_mj, here.energy_high_mj) == (
        KWH // 4, KWH, KWH * 7 // 4,
    )  # fmt: skip
    assert (here.operational_low_mg, here.operational_mg) == (100_000, 400_000)
    assert here.embodied_mg == 2 * 164_000_000 // 35_040
    assert here.embodied_source == "a summary"
    assert not there.known_carbon
    assert there.energy_mj == KWH * 800 // 1_000 * 1_100 // 1_000
    (nowhere,) = await expect(world.books, Plan(CHIP, 1_000, 3_600_000, plan.draw, ()))
    assert (nowhere.site, nowhere.power, nowhere.use.operational) == ("", None, None)
    assert energy_shapes.plan(account_pb2.GetQuoteRequest(chip=CHIP)) is None


async def test_no_tenant_sees_what_anothers_invoice_told(world):
    await DrawKeeper(world.books).keep({CHIP: DRAW})
    await ran(world, "a")
    await bill(world)
    for tenant, rows in ((TENANT, 1), ("tenants/other", 0), ("", 0)):
        async with world.pool.acquire() as db, db.transaction():
            await db.execute("SELECT set_config('gridlease.tenant', $1, true)", tenant)
            assert len(await db.fetch("SELECT * FROM footprint")) == rows
