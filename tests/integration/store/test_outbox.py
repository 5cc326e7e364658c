"""The outbox: told at least once, in order, by one relay at a time."""

import asyncpg
import pytest
from gridlease_mesh.outbox import relay_once
from gridlease_store.outbox import TABLE_SQL, PostgresOutbox, emit
from gridlease_store.pool import connect_pool, transaction
from gridlease_testkit.waiting import eventually


@pytest.fixture
async def pool(database):
    owner = await asyncpg.connect(database)
    await owner.execute("CREATE SCHEMA room; SET search_path TO room;" + TABLE_SQL)
    await owner.close()
    pool = await connect_pool(database, schema="room", max_size=4)
    yield pool
    await pool.close()


@pytest.fixture
async def relays(pool, database):
    """Two relays, as two processes of a room have them."""
    both = [PostgresOutbox(pool, database, "room") for _ in range(2)]
    yield both
    for relay in both:
        await relay.close()


async def test_rows_come_in_order_until_marked(pool, relays):
    relay = relays[0]
    async with transaction(pool) as connection:
        ids = [await emit(connection, f"s.{n}", b"\x00\xff", {"h": "v"}) for n in range(3)]
    rows = await relay.unsent(2)
    assert [it.id for it in rows] == ids[:2]
    assert (rows[0].subject, rows[0].payload, rows[0].headers) == ("s.0", b"\x00\xff", {"h": "v"})
    await relay.mark_sent([it.id for it in rows])
    await relay.mark_sent([it.id for it in rows])
    assert [it.id for it in await relay.unsent(10)] == ids[2:]
    assert await relay.prune(keep_s=0) == 2


async def test_what_is_undone_is_never_told(pool, relays):
    async def work():
        async with transaction(pool) as connection:
            await emit(connection, "s", b"")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await work()
    assert await relays[0].unsent(10) == []


async def test_a_commit_wakes_the_relay(pool, relays):
    relay = relays[0]
    woken = []
    relay.on_wake(lambda: woken.append(1))
    assert await relay.unsent(1) == []
    async with transaction(pool) as connection:
        await emit(connection, "s", b"", notify=False)
    async with transaction(pool) as connection:
        await emit(connection, "s", b"")
        await emit(connection, "s", b"")
        assert woken == []
    await eventually(lambda: woken)
    assert woken == [1]  # once a transaction


async def test_one_relays_and_the_other_takes_over(pool, relays):
    async with transaction(pool) as connection:
        await emit(connection, "s", b"")
    first, second = relays
    assert len(await first.unsent(10)) == 1
    assert await second.unsent(10) == []
    await first.close()

    async def taken_over():
        return await second.unsent(10)

    assert len(await eventually(taken_over)) == 1


async def test_a_killed_session_is_made_anew(pool, relays):
    relay = relays[0]
    assert await relay.unsent(1) == []
    killed = await pool.fetchval(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_locks WHERE locktype = 'advisory'"
    )
    assert killed == 1
    async with transaction(pool) as connection:
        await emit(connection, "s", b"")

    async def told():
        return await relay.unsent(1)

    assert len(await eventually(told)) == 1


async def test_the_mesh_relays_it(pool, relays):
    told = []

    class Broker:
        def publish(self, subject, payload, *, headers=b""):
            told.append((subject, payload))

        async def flush(self, timeout_s=5.0):
            pass

    async with transaction(pool) as connection:
        for n in range(5):
            await emit(connection, f"s.{n}", b"x")
    assert await relay_once(relays[0], Broker(), batch=3) == 3
    assert await relay_once(relays[0], Broker(), batch=3) == 2
    assert await relay_once(relays[0], Broker(), batch=3) == 0
    assert [subject for subject, _ in told] == [f"s.{n}" for n in range(5)]
