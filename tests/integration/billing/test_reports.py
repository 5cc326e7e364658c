"""Reports, budgets and notices on real books; and books that came back from a backup."""

import asyncpg
import pytest
from gridlease_billing import reports
from gridlease_billing.adapters.report_store import PostgresReportBook
from gridlease_billing.domain.grant_row import Cause
from gridlease_billing.domain.price import NewPrice
from gridlease_billing.domain.report import DAY_MS, Budget, Period
from gridlease_billing.domain.spot import ChipUse
from gridlease_billing.prices import create_price
from gridlease_billing.reopen import fence_restored, reopen
from gridlease_billing.supplier_ports import NewContract
from gridlease_billing.suppliers import assign_node, create_contract, create_supplier
from gridlease_testkit.waiting import eventually

from tests.integration.billing.world import (
    CHIP,
    PROJECT,
    SECOND_NS,
    TENANT,
    TERMS,
    USD,
    Phase,
    ask,
    report,
)

_OTHER = "tenants/other"


@pytest.fixture
def book(service_pool):
    return PostgresReportBook(service_pool)


@pytest.fixture
async def owner(dsn):
    owner = await asyncpg.connect(dsn, server_settings={"search_path": "billing"})
    yield owner
    await owner.close()


async def ran(world, lease, seconds=50, *, final=True, **more):
    await world.authorize(ask(lease, **more))
    await world.settle(report(lease))
    await world.pass_time(lease, seconds * 1_000)
    await world.settle(report(lease, seconds * SECOND_NS))
    if final:
        await world.close(lease, cause=Cause.EXITED)
        await world.settle(report(lease, seconds * SECOND_NS, phase=Phase.EXITED, final=True))


def asked(tenant="", period=Period.ALL, start_ms=0, **more):
    return reports.Question(tenant, "", start_ms, None, period, **more)


async def test_revenue_is_what_was_charged_by_device_hour(world, book):
    await ran(world, "a")
    await ran(world, "b", 25, final=False)
    (row,), _ = await reports.revenue(book, asked())
    assert row.amount_nano == 75 * USD // 100
    assert row.device_milli_ms == 75_000 * 1_000
    assert row.nano_per_device_hour == 36 * USD
    (day,), _ = await reports.revenue(book, asked(period=Period.DAY))
    assert day.starts_ms % DAY_MS == 0
    assert day.amount_nano == row.amount_nano


async def test_a_tenant_sees_its_own_and_no_idle_capacity(world, book):
    await ran(world, "a")
    await reports.keep_windows(book, 1_000_000, 60_000, [ChipUse(CHIP, 8_000, 2_000, 0)])
    assert await reports.revenue(book, asked(_OTHER)) == ([], [])
    rows, idle = await reports.revenue(book, asked(TENANT))
    assert len(rows) == 1
    assert not idle


async def test_idle_money_is_what_nobody_used_at_its_price(world, book):
    for _ in range(2):  # a second report of one window says nothing new
        await reports.keep_windows(book, 1_000_000, 60_000, [ChipUse(CHIP, 8_000, 2_000, 0)])
    await reports.keep_windows(book, 1_060_000, 60_000, [ChipUse(CHIP, 8_000, 9_000, 0)])
    _, (idle,) = await reports.revenue(book, asked())
    assert idle.capacity_milli_ms == 2 * 60_000 * 8_000
    assert idle.idle_milli_ms == 60_000 * 6_000
    assert idle.amount_nano == 36 * USD * 6 // 60


async def test_idle_money_is_told_by_site_at_the_sites_own_price(world, book):
    here, there = "sites/oslo", "sites/graz"
    new = NewPrice(CHIP, "ON_DEMAND", 18 * USD, None, "oslo", site=here)
    await create_price(world.books, new)
    uses = [ChipUse(CHIP, 8_000, 2_000, 0, site) for site in (here, there, "")]
    await reports.keep_windows(book, 1_000_000, 60_000, uses)
    _, idle = await reports.revenue(book, asked())
    hour = 6 * 60_000 / 3_600_000
    assert {it.site: it.amount_nano for it in idle} == {
        "": 36 * USD * hour, there: 36 * USD * hour, here: 18 * USD * hour}  # fmt: skip


async def test_revenue_is_told_by_tier_and_by_the_nodes_owner(world, book):
    await create_supplier(world.books, "suppliers/acme", "")
    await create_contract(world.books, NewContract("suppliers/acme", 7_000, 0, 0, "c"))
    await assign_node(world.books, "n2", "suppliers/acme", "n2")
    await world.price(9 * USD, "spot", tier="SPOT")
    await ran(world, "a")
    await ran(world, "b", final=False, tier="SPOT")
    await world.authorize(ask("c", node="n2"))
    await world.settle(report("c"), node="n2")
    await world.pass_time("c", 20_000)
    await world.settle(report("c", 20 * SECOND_NS), node="n2")
    await world.settle(report("c", 20 * SECOND_NS, phase=Phase.CLEAN, final=True), node="n2")
    rows, _ = await reports.revenue(book, asked(by_tier=True, by_supplier=True))
    found = {(it.tier, it.supplier): it.nano_per_device_hour // USD for it in rows}
    assert found == {
        ("ON_DEMAND", ""): 36, ("SPOT", ""): 9, ("ON_DEMAND", "suppliers/acme"): 36}  # fmt: skip
    together, _ = await reports.revenue(book, asked())
    assert sum(it.amount_nano for it in rows) == together[0].amount_nano
    own, _ = await reports.revenue(book, asked(TENANT, by_supplier=True))
    assert {it.supplier for it in own} == {""}, "whose nodes they were is the platform's affair"


async def test_money_lasts_as_long_as_what_runs_lets_it(world, book):
    assert (await reports.burning(book, TENANT)).lasts_ms is None
    await ran(world, "a", final=False)
    found = await reports.burning(book, TENANT)
    balance = await world.balance()
    assert found.available_nano == balance.available_nano
    assert found.rate_nano_per_hour == 36 * USD
    assert found.lasts_ms == balance.available_nano * 3_600_000 // (36 * USD)


async def test_a_threshold_is_told_once_in_order_and_to_its_tenant(world, book):
    for project in ("", PROJECT):
        await reports.set_budget(book, Budget(TENANT, project, USD, (500, 900, 1_000)))
    await reports.set_budget(book, Budget(_OTHER, "", USD, (1,)))
    assert await reports.watch_budgets(book) == 0
    await ran(world, "a", 55, final=False)
    assert await reports.watch_budgets(book) == 2
    assert await reports.watch_budgets(book) == 0
    await ran(world, "b", 50)
    assert await reports.watch_budgets(book) == 4
    told = await reports.list_notices(book, TENANT, PROJECT, 0, 100)
    assert [it.sequence for it in told] == list(range(1, 7))
    whole = [it.notice.facts["threshold_permille"] for it in told if not it.notice.project]
    assert whole == ["500", "900", "1000"]
    assert not await reports.list_notices(book, _OTHER, "", 0, 100)
    assert len(await reports.list_notices(book, TENANT, "projects/else", 0, 100)) == 3
    ((_, spent), _) = await reports.list_budgets(book, TENANT)
    assert spent == 105 * USD // 100


async def test_a_day_that_costs_unlike_others_is_told_once(world, book, owner):
    await ran(world, "a")
    await owner.execute("SET session_replication_role = replica")
    await owner.execute("SELECT set_config('gridlease.tenant', '*', false)")
    today = await owner.fetchval("SELECT (extract(epoch FROM now())::int8 / 86400) * 86400000")
    (line,) = await owner.fetch("SELECT * FROM line")
    names = ", ".join(sorted({*line.keys()} - {"recorded_ms", "lease", "amount_nano"}))
    for day in range(1, 12):
        await owner.execute(
            f"INSERT INTO line (recorded_ms, lease, amount_nano, {names})"
            f" SELECT $1, $2, $3, {names} FROM line WHERE lease = 'a' LIMIT 1",
            today - day * DAY_MS,
            f"l{day}",
            100 * USD if day == 1 else USD + day,
        )
    assert await reports.find_anomalies(book) == 1
    assert await reports.find_anomalies(book) == 0
    (told,) = await reports.list_notices(book, TENANT, "", 0, 10)
    assert told.notice.kind == "cost.anomaly"
    await owner.execute("DELETE FROM line WHERE lease <> 'a'")


async def test_the_check_finds_an_edit(world, books, book, owner):
    await ran(world, "a")
    found = await reports.check_books(books, book)
    assert found.whole
    assert found.months_ahead == 3
    assert found.head == (await owner.fetchval("SELECT books_head()")).hex()
    await owner.execute("SET session_replication_role = replica")
    await owner.execute("UPDATE journal SET cause = 'x' WHERE seq = 1")
    found = await reports.check_books(books, book)
    assert not found.whole
    assert found.broken
    await owner.execute("UPDATE journal SET cause = 'test' WHERE seq = 1")


async def test_restored_books_are_fenced_before_the_doors_open(world, books, book, owner):
    await ran(world, "a")
    await ran(world, "b", 10, final=False)
    await world.authorize(ask("c"))
    assert await fence_restored(books, book, TERMS) is None
    await reopen(books, book, TERMS, 60_000)  # nothing to do: it does not wait
    await owner.execute(
        "INSERT INTO restored (restored_ms) SELECT extract(epoch FROM now()) * 1000"
    )
    assert await fence_restored(books, book, TERMS) == 2
    assert [(await world.row(it))["state"] for it in "abc"] == ["FINAL", "FENCED", "FINAL"]
    (grant,) = await world.settle(report("b", 20 * SECOND_NS))
    assert grant.last
    await reopen(books, book, TERMS, 300)
    await eventually(lambda: owner.fetchval("SELECT opened_ms IS NOT NULL FROM restored"))
    assert await fence_restored(books, book, TERMS) is None
