"""Old months leave the books: nothing that anybody needs goes with them."""

import asyncio
import gzip
import hashlib
import io
import json
import threading

import asyncpg
import pytest
from gridlease_billing.adapters.report_store import PostgresReportBook
from gridlease_billing.invoice import get_invoice
from gridlease_billing.reports import check_books
from gridlease_cli.__main__ import run
from gridlease_kernel.faults import Conflict, Invalid, Precondition
from gridlease_store import retain as retention
from gridlease_store.retain import retain

from tests.integration.billing.test_documents import bill, ran
from tests.integration.billing.world import PROJECT, SECOND_NS, TENANT, World

JANUARY, FEBRUARY = 1_672_531_200_000, 1_675_209_600_000  # of 2023
_SUMS = "SELECT id, account_sum(id) FROM account ORDER BY id"


@pytest.fixture
async def owner(dsn):
    owner = await asyncpg.connect(dsn, server_settings={"search_path": "billing"})
    await owner.execute("SELECT set_config('gridlease.tenant', '*', false)")
    yield owner
    await owner.close()


@pytest.fixture
async def old(books, pool, owner):
    """Books with two old months: of January a billed line, of February one on no invoice."""
    assert await pool.fetchval("SELECT create_months($1, 2)", JANUARY) == 6
    accounts = [it["id"] for it in await owner.fetch("SELECT id FROM account ORDER BY 1 LIMIT 2")]
    for at in (JANUARY, JANUARY + 5, FEBRUARY + 7):
        sql = "SELECT post('fx', NULL, 'a \"word\",\nand another', $1, $2, '{7,-7}')"
        await pool.execute(sql, at, accounts)
    world = World(books, pool)
    await world.begin()
    for lease, at in (("a", JANUARY), ("b", FEBRUARY)):
        await ran(world, lease, 10 * SECOND_NS, job=f"{PROJECT}/jobs/{lease}")
        async with owner.transaction():
            await owner.execute("SET LOCAL session_replication_role = replica")
            await owner.execute("UPDATE line SET recorded_ms = $2 WHERE lease = $1", lease, at + 9)
    world.invoice = await bill_of(world, "a")
    yield world
    await world.check()


async def bill_of(world, job):
    from gridlease_billing.invoice import create_invoice
    from gridlease_billing.ports import Scope
    from gridlease_kernel.ids import RandomIds

    scope = Scope(TENANT, PROJECT, f"{PROJECT}/jobs/{job}")
    return await create_invoice(world.books, RandomIds(), scope, job)


async def tables(owner):
    found = await owner.fetch(
        "SELECT relname FROM pg_class WHERE relkind = 'r' AND relname ~ '_2023_0[12]$'"
        " AND relnamespace = 'billing'::regnamespace ORDER BY 1"
    )
    return [it["relname"] for it in found]


def told(months):
    return [(it.month, it.action) for it in months]


async def test_a_month_goes_when_nobody_needs_it_any_more(old, owner, dsn, tmp_path, service_pool):
    sums = await owner.fetch(_SUMS)
    kept = {
        it: await owner.fetch(f"SELECT * FROM {it} ORDER BY 1, 2, 3") for it in await tables(owner)
    }
    assert len(kept) == 6

    async def same():
        assert await owner.fetch(_SUMS) == sums
        assert (await check_books(old.books, PostgresReportBook(service_pool))).whole
        again = await get_invoice(old.books, TENANT, old.invoice.head.name)
        assert again == old.invoice
        return True

    plan = await retain(dsn, "2023-03", archive=tmp_path, dry_run=True)
    assert told(plan) == [("2023-01", "archive"), ("2023-02", "keep")]
    assert "1 lines or credits are on no final invoice" in plan[1].why
    assert "the law may ask for it until 203" in plan[0].why
    assert await tables(owner) == sorted(kept)
    assert not list(tmp_path.iterdir())

    plan = await retain(dsn, "2023-03", archive=tmp_path)
    assert told(plan) == [("2023-01", "archive"), ("2023-02", "keep")]
    assert await owner.fetchval("SELECT count(*) FROM line WHERE lease = 'a'") == 0, "detached"
    assert await owner.fetchval("SELECT count(*) FROM line_2023_01 WHERE lease = 'a'") == 1
    assert await tables(owner) == sorted(kept)
    assert await same()
    manifest = json.loads((tmp_path / "2023-01.json").read_text())
    for it in manifest["tables"]:
        content = gzip.decompress((tmp_path / it["file"]).read_bytes())
        assert hashlib.sha256(content).hexdigest() == it["content_sha256"]
        assert it["rows"] == len(kept[it["table"]])
        # Back into a table of the same form: the same rows.
        await owner.execute(f"CREATE TEMP TABLE back (LIKE {it['table']})")
        await owner.copy_to_table("back", source=io.BytesIO(content), format="csv")
        assert await owner.fetch("SELECT * FROM back ORDER BY 1, 2, 3") == kept[it["table"]]
        await owner.execute("DROP TABLE back")

    plan = await retain(dsn, "2023-03", archive=tmp_path, keep_years=0)
    assert told(plan) == [("2023-01", "drop"), ("2023-02", "keep")]
    assert await tables(owner) == [it for it in sorted(kept) if it.endswith("02")]
    assert await same()
    await bill(old, "rest")
    plan = await retain(dsn, "2023-03", keep_years=0)
    assert told(plan) == [("2023-02", "detach")], "no archive: it stays as tables of its own"
    plan = await retain(dsn, "2023-03", archive=tmp_path, keep_years=0)
    assert told(plan) == [("2023-02", "drop")]
    assert not await tables(owner)
    assert await same()


async def test_what_does_not_read_back_is_not_dropped(old, owner, dsn, tmp_path, monkeypatch):
    real = retention._copy

    async def torn(connection, name, file):
        digest = await real(connection, name, file)
        content = gzip.decompress(file.read_bytes())
        file.write_bytes(gzip.compress(content[: len(content) // 2]))
        return digest

    monkeypatch.setattr(retention, "_copy", torn)
    with pytest.raises(Precondition) as refused:
        await retain(dsn, "2023-02", archive=tmp_path, keep_years=0)
    assert refused.value.reason == "ARCHIVE_DIFFERS"
    assert len(await tables(owner)) == 6


async def test_who_uses_a_month_is_not_disturbed(old, owner, dsn, tmp_path, monkeypatch):
    monkeypatch.setattr(retention, "_TRIES", 1)
    monkeypatch.setattr(retention, "_LOCK_MS", 100)
    async with owner.transaction():
        await owner.fetchval("SELECT count(*) FROM journal")  # a long report
        with pytest.raises(Conflict) as busy:
            await retain(dsn, "2023-02", archive=tmp_path)
    assert busy.value.reason == "BOOKS_BUSY"
    assert told(await retain(dsn, "2023-02", archive=tmp_path)) == [("2023-01", "archive")]


async def test_months_that_are_not_over_stay(dsn, tmp_path):
    for month, reason in (("2999-01", "MONTH_NOT_OVER"), ("2023-13", "MONTH_MALFORMED")):
        with pytest.raises(Invalid) as refused:
            await retain(dsn, month)
        assert refused.value.reason == reason
    with pytest.raises(Precondition) as refused:
        await retain(dsn, "2023-01", archive=tmp_path / "nowhere")
    assert refused.value.reason == "ARCHIVE_FOLDER"


async def test_the_command_says_what_it_would_do(old, dsn, capsys):
    words = ["books", "retain", "--before", "2023-03", "--dry-run", "--json", "--postgres", dsn]
    code = []
    thread = threading.Thread(target=lambda: code.append(run(words)))
    thread.start()
    await asyncio.to_thread(thread.join)
    assert code == [0]
    found = json.loads(capsys.readouterr().out)
    assert [it["action"] for it in found["months"]] == ["detach", "keep"]
