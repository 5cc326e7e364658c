"""What operators watch: months that run out are told before it hurts."""

import asyncpg
import pytest
from gridlease_billing.adapters.report_store import PostgresReportBook
from gridlease_billing.domain.spot import ChipUse
from gridlease_billing.levels import look_at_money, look_at_months
from gridlease_billing.months import make_months
from gridlease_billing.reports import check_books, keep_windows, list_notices

from tests.integration.billing.test_documents import bill, german, ran
from tests.integration.billing.world import CHIP, SECOND_NS

_MONTH = "SELECT to_char(now() AT TIME ZONE 'UTC' + make_interval(months => $1), '_YYYY_MM')"


@pytest.fixture
def book(service_pool):
    return PostgresReportBook(service_pool)


@pytest.fixture
async def owner(dsn):
    owner = await asyncpg.connect(dsn, server_settings={"search_path": "billing"})
    yield owner
    await owner.close()


async def test_months_that_run_out_and_rows_astray_are_told_once_a_day(books, book, owner, pool):
    levels = {}
    assert await look_at_months(books, book, levels.__setitem__) == ()
    assert levels["gridlease_billing_months_ahead"] == [({}, 3)]
    for at in (1, 2):
        month = await owner.fetchval(_MONTH, at)
        for name in ("journal", "entry", "line"):
            await owner.execute(f"DROP TABLE {name}{month}")
    accounts = [it["id"] for it in await owner.fetch("SELECT id FROM account ORDER BY 1 LIMIT 2")]
    await pool.execute("SELECT post('fx', NULL, 'far', 4102444800000, $1, '{1,-1}')", accounts)
    for _ in range(2):
        told = await look_at_months(books, book, levels.__setitem__)
        assert told == ("MONTHS_LOW", "ROWS_ASTRAY")
    assert levels["gridlease_billing_months_ahead"] == [({}, 1)]
    assert levels["gridlease_billing_rows_astray"] == [({}, 3)]
    notices = [it.notice.kind for it in await list_notices(book, "", "", 0, 10)]
    assert notices == ["books.months_low", "books.rows_astray"]
    checked = await check_books(books, book)
    assert (checked.alarms, checked.whole) == ({"MONTHS_LOW": 1, "ROWS_ASTRAY": 1}, False)
    assert not await list_notices(book, "tenants/demo", "", 0, 10), "operators are told, alone"
    assert await make_months(books) == 6
    await look_at_months(books, book, levels.__setitem__)
    assert levels["gridlease_billing_months_ahead"] == [({}, 3)]


async def test_money_is_told_by_chip_and_site(world, book):
    await german(world)
    await ran(world, "a", 50 * SECOND_NS, quantity_milli=2_000)
    await bill(world)
    async with book.work() as tx:
        now_ms = await tx.now_ms()
    await keep_windows(book, now_ms, 3_600_000, [ChipUse(CHIP, 8_000, 2_000, 0, "sites/oslo")])
    levels = {}
    await look_at_money(world.books, book, levels.__setitem__)
    assert levels["gridlease_billing_receivable_open"] == [({}, 0.19)]
    assert levels["gridlease_billing_receivable_overdue"] == [({}, 0.0)]
    where = {"chip": CHIP, "site": "", "tier": "ON_DEMAND", "supplier": ""}
    assert levels["gridlease_billing_day_revenue"] == [(where, 1.0)]
    assert levels["gridlease_billing_day_revenue_per_device_hour"] == [(where, 36.0)]
    assert levels["gridlease_billing_day_idle_money"] == [
        ({"chip": CHIP, "site": "sites/oslo"}, 6 * 36.0)
    ]
