"""A migration beside traffic: nobody waits long, and nothing is lost."""

import asyncio
import importlib.resources
import shutil
import time

import asyncpg
import pytest
from gridlease_billing.adapters.books import PostgresBooks
from gridlease_billing.bootstrap import ROLE
from gridlease_billing.credit import pay_in
from gridlease_billing.ports import Credit
from gridlease_kernel.clock import SystemClock
from gridlease_kernel.faults import Unreachable
from gridlease_store import migrate as migrations
from gridlease_store.migrate import migrate
from gridlease_store.pool import connect_pool
from gridlease_testkit.waiting import eventually

from tests.integration.billing.world import TENANT

WRITERS = 8
MOST_S = 1.0


async def test_the_newest_revision_comes_beside_traffic(postgres, tmp_path):
    source = importlib.resources.files("gridlease_billing") / "migrations"
    before = tmp_path / "migrations"
    await asyncio.to_thread(shutil.copytree, str(source), before)
    newest = max(before.glob("0*.sql"))
    newest.unlink()
    dsn = postgres.dsn(await postgres.create())
    await migrate(dsn, "billing", before, login=True)
    pool = await connect_pool(dsn, schema="billing", role=ROLE, max_size=WRITERS)
    books = PostgresBooks(pool, SystemClock(), 600_000)
    done, waits, stop = [0] * WRITERS, [], asyncio.Event()

    async def writer(n):
        while not stop.is_set():
            began = time.monotonic()
            await pay_in(books, Credit(f"{TENANT}{n}", 1, f"w{n}-{done[n]}", "load"))
            waits.append(time.monotonic() - began)
            done[n] += 1

    writers = [asyncio.create_task(writer(n)) for n in range(WRITERS)]
    try:
        await eventually(lambda: min(done) > 5, 30.0)
        assert await migrate(dsn, "billing", "gridlease_billing", login=True) == [newest.stem]
        seen = min(done)
        await eventually(lambda: min(done) > seen + 5, 30.0)
    finally:
        stop.set()
        await asyncio.gather(*writers)
        pool.terminate()
    print(f"longest wait beside {newest.stem}: {max(waits):.3f} s of {len(waits)}")
    assert max(waits) <= MOST_S


async def test_a_migration_gives_way_to_traffic_and_comes_later(postgres, tmp_path, monkeypatch):
    """What it changes is in use by a long transaction: it would queue, and all others behind it."""
    monkeypatch.setattr(migrations, "_DDL_LOCK_MS", 100)
    monkeypatch.setattr(migrations, "_BUSY_PAUSE_S", 0.2)
    source = importlib.resources.files("gridlease_billing") / "migrations"
    files = tmp_path / "migrations"
    await asyncio.to_thread(shutil.copytree, str(source), files)
    dsn = postgres.dsn(await postgres.create())
    await migrate(dsn, "billing", files, login=True)
    newest = len(list(files.glob("0*.sql")))
    later_one = f"{newest + 1:04d}_later"
    (files / f"{later_one}.sql").write_text("ALTER TABLE balance ADD COLUMN later int;")
    tries, real = [], migrations._lock

    async def lock(connection, timeout_s):
        tries.append(time.monotonic())
        await real(connection, timeout_s)

    monkeypatch.setattr(migrations, "_lock", lock)
    pool = await connect_pool(dsn, schema="billing", role=ROLE, max_size=2)
    books = PostgresBooks(pool, SystemClock(), 600_000)
    reader = await asyncpg.connect(dsn)
    done, waits, stop = [], [], asyncio.Event()

    async def write():
        while not stop.is_set():
            began = time.monotonic()
            await pay_in(books, Credit(TENANT, 1, f"w{len(done)}", "load"))
            waits.append(time.monotonic() - began)
            done.append(began)

    writing = asyncio.create_task(write())
    try:
        async with reader.transaction():
            await reader.fetch("SELECT * FROM billing.balance")  # a long report
            later = asyncio.create_task(migrate(dsn, "billing", files, login=True))
            await eventually(lambda: len(tries) > 2, 30.0)
            seen = len(done)
            await eventually(lambda: len(done) > seen + 3, 30.0)
            assert not later.done()
        assert await later == [later_one]
        seen = len(done)
        await eventually(lambda: len(done) > seen + 3, 30.0)
    finally:
        stop.set()
        await writing
        await reader.close()
        pool.terminate()
    print(f"longest wait beside {len(tries)} tries: {max(waits):.3f} s of {len(waits)}")
    assert max(waits) <= MOST_S


async def test_who_is_busy_for_too_long_is_waited_for_by_the_services(
    database, tmp_path, monkeypatch
):
    monkeypatch.setattr(migrations, "_DDL_LOCK_MS", 20)
    monkeypatch.setattr(migrations, "_BUSY_PAUSE_S", 0.01)
    monkeypatch.setattr(migrations, "_BUSY_S", 0.0)
    (tmp_path / "0001_one.sql").write_text("CREATE TABLE one (n int);")
    await migrate(database, "scheduler", tmp_path)
    (tmp_path / "0002_two.sql").write_text("ALTER TABLE one ADD COLUMN m int;")
    reader = await asyncpg.connect(database)
    async with reader.transaction():
        await reader.fetch("SELECT * FROM scheduler.one")
        with pytest.raises(Unreachable) as busy:
            await migrate(database, "scheduler", tmp_path)
    assert busy.value.reason == "DATABASE_BUSY"
    await reader.close()
    assert await migrate(database, "scheduler", tmp_path) == ["0002_two"]
