"""The ledger's tables: chains that show edits, months, rows that only their tenant sees."""

import asyncpg
import pytest
from gridlease_billing.bootstrap import ROLE
from gridlease_billing.credit import balance, pay_in
from gridlease_billing.domain.grant_row import Phase
from gridlease_billing.months import AHEAD, make_months
from gridlease_billing.ports import Credit
from gridlease_store.pool import transaction

from tests.integration.billing.world import SECOND_NS, TENANT, USD, ask, report

_OTHER = "tenants/other"
_NO_TENANT = {
    "currency",
    "legal_entity",
    "invoice_prefix",
    "tax_rate",
    "price",
    "spot_move",
    "chain",
    "journal_head",
    "invoice_counter",
}
_FORGERIES = {
    "an amount": "UPDATE entry SET amount = 2 * amount WHERE journal = 3",
    "a time": "UPDATE journal SET recorded_ms = recorded_ms - 1 WHERE seq = 1",
    "a note": "UPDATE journal SET cause = 'x' WHERE seq = 1",
    "a journal less": "DELETE FROM journal WHERE seq = 2",
    "the last one less": "DELETE FROM journal WHERE seq = 3",
    "a head": "UPDATE chain SET hash = sha256('x') WHERE seq > 0",
}


@pytest.fixture
async def owner(dsn):
    owner = await asyncpg.connect(dsn, server_settings={"search_path": "billing"})
    yield owner
    await owner.close()


@pytest.mark.parametrize("what", _FORGERIES)
async def test_an_edit_behind_the_triggers_breaks_a_link(books, owner, what):
    for n in range(3):
        await pay_in(books, Credit(TENANT, USD, str(n), "test"))
    assert not await owner.fetch("SELECT * FROM broken_links()")
    head = await owner.fetchval("SELECT books_head()")
    await owner.execute("SET session_replication_role = replica")
    assert await owner.execute(_FORGERIES[what]) not in ("UPDATE 0", "DELETE 0")
    assert await owner.fetch("SELECT * FROM broken_links()")
    assert (await owner.fetchval("SELECT books_head()") != head) == (what == "a head")


async def test_the_head_of_a_day_is_kept(books, owner):
    await pay_in(books, Credit(TENANT, USD, "today", "test"))
    before = await owner.fetchrow("SELECT seq, hash FROM chain WHERE lane = 0")
    accounts = [r["id"] for r in await owner.fetch("SELECT id FROM account LIMIT 2")]
    tomorrow = await owner.fetchval("SELECT recorded_ms + 86400000 FROM chain WHERE lane = 0")
    await owner.execute("SELECT post('fx', NULL, '', $1, $2, '{1,-1}')", tomorrow, accounts)
    assert await owner.fetchrow("SELECT seq, hash FROM journal_head") == before


async def test_every_table_with_rows_of_tenants_says_whose_they_are(owner):
    tables = await owner.fetch("""
        SELECT c.relname, c.relrowsecurity AND c.relforcerowsecurity AS forced, c.relispartition,
            EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid) AS policy,
            EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid
                AND a.attname IN ('tenant', 'lease', 'account', 'invoice')) AS whose
        FROM pg_class c WHERE c.relnamespace = 'billing'::regnamespace AND c.relkind IN ('r', 'p')
    """)
    for table in tables:
        name = table["relname"]
        if table["relispartition"]:  # no policy of its own: nobody looks past the parent
            assert table["forced"], name
        elif table["whose"]:
            assert table["forced"], name
            assert table["policy"], name
        elif name not in _NO_TENANT | {"alembic_version"}:
            assert table["policy"], f"{name}: whose are its rows?"


async def test_a_transaction_sees_the_rows_of_the_tenant_that_it_names(world, service_pool):
    await pay_in(world.books, Credit(_OTHER, USD, "r", "x"))
    await world.authorize(ask("a"), ask("b", tenant=_OTHER, quantity_milli=10))
    for phase in (Phase.KNOWN, Phase.STARTING):
        await world.settle(report("a", SECOND_NS, phase=phase), report("b", 1, phase=phase))
    tables = ("lease", "segment", "meter", "account", "balance", "entry")
    for tenant, leases in ((TENANT, ["a"]), (_OTHER, ["b"]), ("", []), ("*", ["a", "b"])):
        async with transaction(service_pool) as db:
            await db.execute("SELECT set_config('gridlease.tenant', $1, true)", tenant)
            found = [it["id"] for it in await db.fetch("SELECT id FROM lease ORDER BY id")]
            assert found == leases
            for table in tables:
                count = await db.fetchval(f"SELECT count(*) FROM {table}")
                assert bool(count) == bool(leases), (tenant, table)
            assert await db.fetchval("SELECT count(*) FROM meter") == len(leases)
            assert bool(await db.fetchval("SELECT count(*) FROM journal")) == (tenant == "*")
    assert await service_pool.fetchval("SELECT count(*) FROM lease") == 0  # nothing said: nothing
    assert (await balance(world.books, _OTHER)).posted_nano == USD
    async with service_pool.acquire() as db, db.transaction():
        await db.execute("SELECT set_config('gridlease.tenant', $1, true)", _OTHER)
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await db.execute("INSERT INTO account (kind, tenant) VALUES ('receivable', $1)", TENANT)


async def test_months_are_made_ahead_and_taken_off_once_they_are_summed_up(pool, owner):
    made = await pool.fetchval("SELECT create_months(0, 2)")  # of 1970
    assert made == 6
    assert await pool.fetchval("SELECT create_months(0, 2)") == 0
    accounts = [r["id"] for r in await owner.fetch("SELECT id FROM account ORDER BY id LIMIT 2")]
    await pool.execute("SELECT post('fx', NULL, '', 5, $1, '{7,-7}')", accounts)
    assert await owner.fetchval("SELECT count(*) FROM journal_1970_01") == 1
    month_ms = 31 * 86_400_000
    assert await pool.fetchval("SELECT detach_months($1)", month_ms) == 0  # not summed up
    sums = await owner.fetch("SELECT id, account_sum(id) FROM account ORDER BY id")
    assert await pool.fetchval("SELECT roll_up($1)", month_ms) > 0
    assert await pool.fetchval("SELECT roll_up($1)", month_ms) == 0
    assert await pool.fetchval("SELECT detach_months($1)", month_ms) == 3
    assert sums == await owner.fetch("SELECT id, account_sum(id) FROM account ORDER BY id")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await pool.execute("INSERT INTO journal_1970_01 SELECT * FROM journal")


async def test_the_service_makes_its_months_itself(books, owner):
    assert await make_months(books) == 0  # the migration made them
    for table in ("journal", "entry", "line"):
        parts = await owner.fetchval(
            "SELECT count(*) FROM pg_inherits WHERE inhparent = $1::regclass", f"billing.{table}"
        )
        assert parts == AHEAD + 1  # and the default


async def test_nobody_writes_the_books_but_through_the_ledger(world, service_pool):
    for table in ("journal", "entry", "journal_key", "chain", "journal_head", "rollup"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await service_pool.execute(f"INSERT INTO {table} SELECT * FROM {table}")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await service_pool.execute("SELECT append_journal(1, 'fx', NULL, '', 0, '{}', '{}')")
    assert await service_pool.fetchval("SELECT current_user") == ROLE
