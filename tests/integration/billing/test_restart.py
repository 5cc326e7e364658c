"""The database killed under load, every process of it: soon back, nothing lost, nothing doubled."""

import asyncio
import contextlib
import os
import signal
import time
from functools import partial
from pathlib import Path

import asyncpg
import pytest
from gridlease_billing.adapters.books import PostgresBooks
from gridlease_billing.bootstrap import ROLE
from gridlease_billing.credit import journal_summary, pay_in
from gridlease_billing.ports import Credit
from gridlease_kernel.clock import SystemClock
from gridlease_kernel.faults import Conflict, Unreachable
from gridlease_store.migrate import migrate
from gridlease_store.pool import connect_pool
from gridlease_testkit.postgres import start_server
from gridlease_testkit.waiting import eventually

from tests.integration.billing.world import SECOND_NS, TENANT, USD, World, ask, report

WRITERS = 16
MOST_S = 5.0


@pytest.fixture
async def server(state_folder):
    server = await asyncio.to_thread(start_server, state_folder / "postgres")
    yield server
    await asyncio.to_thread(server.stop, 5.0)


@pytest.fixture
async def pool(server):
    await migrate(server.dsn(), "billing", "gridlease_billing", login=True)
    pool = await connect_pool(server.dsn(), schema="billing", role=ROLE, max_size=WRITERS)
    yield pool
    pool.terminate()


def kill_group(postmaster):
    """SIGKILL to the postmaster and all that it began, at once."""
    children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
    for pid in (postmaster, *map(int, children)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


async def patiently(call):
    """As clients do: again under the same id until there is an answer."""

    async def answered():
        try:
            return [await call()]
        except (Unreachable, Conflict):
            return None

    return (await eventually(answered, 30.0))[0]


async def digest(server):
    """One value for all that the books say."""
    db = await asyncpg.connect(server.dsn(), server_settings={"search_path": "billing"})
    try:
        await db.execute("SELECT set_config('gridlease.tenant', '*', false)")
        head = await db.fetchval("SELECT books_head()")
        rows = [
            await db.fetch(f"SELECT md5(string_agg(t::text, '|' ORDER BY t::text)) FROM {name} t")
            for name in ("lease", "segment", "meter", "balance", "line", "entry", "journal_key")
        ]
        assert not await db.fetch("SELECT * FROM broken_links()")
        return head, rows
    finally:
        await db.close()


async def test_killed_under_load_it_serves_soon_and_the_books_are_whole(server, pool):
    books = PostgresBooks(pool, SystemClock(), 600_000)
    world = World(books, pool)
    await world.begin()
    await world.authorize(*(ask(f"l{n}", quantity_milli=1) for n in range(WRITERS)))
    done = [0] * WRITERS
    stop = asyncio.Event()

    async def writer(n):
        while not stop.is_set():
            count = done[n] + 1
            paid = Credit(TENANT, 1_000, f"w{n}-{count}", "load")
            await patiently(partial(pay_in, books, paid))
            said = report(f"l{n}", count * SECOND_NS // 1_000)
            await patiently(partial(world.settle, said))
            done[n] = count

    writers = [asyncio.create_task(writer(n)) for n in range(WRITERS)]
    try:
        await eventually(lambda: min(done) > 5, 30.0)
        await asyncio.to_thread(kill_group, server.pid)
        began = time.monotonic()
        await eventually(lambda: server.pid is None, 10.0)
        await asyncio.to_thread(server.start)
        seen = sum(done)
        await eventually(lambda: sum(done) > seen, 30.0)
        took = time.monotonic() - began
        await eventually(lambda: min(done) > 10, 30.0)
    finally:
        stop.set()
        await asyncio.gather(*writers)
    print(f"serving again after {took:.2f} s, {sum(done)} rounds")
    assert took <= MOST_S

    summary = await journal_summary(books)
    assert (summary.sum_nano, summary.off_balance) == (0, 0)
    async with pool.acquire() as db, db.transaction():
        await db.execute("SELECT set_config('gridlease.tenant', '*', true)")
        paid = await db.fetchval("SELECT count(*) FROM journal_key WHERE idem_key LIKE '%/w%-%'")
        charged = await db.fetchval(
            "SELECT -sum(amount) FROM entry JOIN account a ON a.id = account"
            " JOIN journal j ON j.id = journal WHERE j.kind = 'charge' AND a.kind <> 'revenue'"
        )
    assert paid == sum(done)  # each once, whatever was retried
    balance = await world.balance()
    assert balance.posted_nano == 100 * USD + 1_000 * sum(done) - charged

    before = await digest(server)
    await asyncio.to_thread(kill_group, server.pid)
    await eventually(lambda: server.pid is None, 10.0)
    await asyncio.to_thread(server.start)
    assert await digest(server) == before
