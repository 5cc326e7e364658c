"""A migration beside traffic: nobody waits long, and nothing is lost."""

import asyncio
import importlib.resources
import shutil
import time

from gridlease_billing.adapters.books import PostgresBooks
from gridlease_billing.bootstrap import ROLE
from gridlease_billing.credit import pay_in
from gridlease_billing.ports import Credit
from gridlease_kernel.clock import SystemClock
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
