"""Pools and transactions on a real server."""

import asyncio
import os
import signal

import asyncpg
import pytest
from gridlease_kernel.faults import Conflict, Precondition, Unreachable
from gridlease_store.embedded import EmbeddedPostgres
from gridlease_store.pool import connect_pool, retrying, transaction
from gridlease_testkit.waiting import eventually


@pytest.fixture
async def pool(database):
    owner = await asyncpg.connect(database)
    await owner.execute(
        "CREATE SCHEMA room; CREATE TABLE room.thing (id int PRIMARY KEY, n int, j jsonb)"
    )
    await owner.close()
    pool = await connect_pool(database, schema="room", max_size=4)
    yield pool
    await pool.close()


async def test_a_pool_sees_its_schema_and_speaks_jsonb(pool):
    async with transaction(pool) as connection:
        await connection.execute("INSERT INTO thing VALUES (1, 0, $1)", {"a": [1]})
    assert await pool.fetchval("SELECT j FROM thing") == {"a": [1]}
    assert await pool.fetchval("SHOW search_path") == "room"


async def test_an_exception_undoes_the_block(pool):
    async def work():
        async with transaction(pool) as connection:
            await connection.execute("INSERT INTO thing VALUES (1, 0)")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await work()
    assert await pool.fetchval("SELECT count(*) FROM thing") == 0


async def test_a_constraint_passes_through(pool):
    async with transaction(pool) as connection:
        await connection.execute("INSERT INTO thing VALUES (1, 0)")
    with pytest.raises(asyncpg.UniqueViolationError):
        async with transaction(pool) as connection:
            await connection.execute("INSERT INTO thing VALUES (1, 0)")


async def test_a_killed_backend_is_unreachable_and_the_pool_recovers(pool):
    async def work():
        async with transaction(pool) as connection:
            pid = await connection.fetchval("SELECT pg_backend_pid()")
            await pool.execute("SELECT pg_terminate_backend($1)", pid)
            await connection.execute("INSERT INTO thing VALUES (1, 0)")

    with pytest.raises(Unreachable) as caught:
        await work()
    assert caught.value.reason == "DATABASE_UNREACHABLE"
    assert await pool.fetchval("SELECT count(*) FROM thing") == 0


async def test_a_backend_killed_before_its_commit_leaves_the_outcome_unknown(pool):
    async def work():
        async with transaction(pool) as connection:
            await connection.execute("INSERT INTO thing VALUES (1, 0)")
            pid = await connection.fetchval("SELECT pg_backend_pid()")
            await pool.execute("SELECT pg_terminate_backend($1, 5000)", pid)

    with pytest.raises(Unreachable) as caught:
        await work()
    assert caught.value.reason == "COMMIT_OUTCOME_UNKNOWN"


async def test_a_slow_statement_is_unreachable_and_the_connection_dropped(database):
    pool = await connect_pool(database, schema="public", command_timeout_s=0.2, max_size=1)
    with pytest.raises(Unreachable):
        async with transaction(pool) as connection:
            await connection.execute("SELECT pg_sleep(5)")
    assert await pool.fetchval("SELECT 1") == 1
    await pool.close()


async def test_conflicts_are_retried_until_all_are_counted(pool):
    async with transaction(pool) as connection:
        await connection.execute("INSERT INTO thing VALUES (1, 0)")
    tries = 0

    async def increment(connection):
        nonlocal tries
        tries += 1
        n = await connection.fetchval("SELECT n FROM thing WHERE id = 1")
        await connection.execute("UPDATE thing SET n = $1 WHERE id = 1", n + 1)

    await asyncio.gather(*(retrying(pool, increment, attempts=50) for _ in range(12)))
    assert await pool.fetchval("SELECT n FROM thing") == 12
    assert tries > 12


async def test_retries_are_bounded(pool):
    tries = 0

    async def always(connection):
        nonlocal tries
        tries += 1
        raise asyncpg.SerializationError("again")

    with pytest.raises(Conflict):
        await retrying(pool, always, attempts=3)
    assert tries == 3


async def test_a_cancelled_block_writes_nothing_and_harms_no_one(pool):
    started = asyncio.Event()

    async def work():
        async with transaction(pool) as connection:
            await connection.execute("INSERT INTO thing VALUES (1, 0)")
            started.set()
            await connection.execute("SELECT pg_sleep(30)")

    task = asyncio.create_task(work())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await pool.fetchval("SELECT count(*) FROM thing") == 0


async def test_a_deferred_constraint_at_commit_is_a_decided_outcome(pool, database):
    owner = await asyncpg.connect(database)
    await owner.execute("ALTER TABLE room.thing ADD UNIQUE (n) DEFERRABLE INITIALLY DEFERRED")
    await owner.close()
    with pytest.raises(asyncpg.UniqueViolationError):
        async with transaction(pool) as connection:
            await connection.execute("INSERT INTO thing VALUES (1, 0), (2, 0)")


async def test_a_wrong_database_is_refused_at_once(postgres):
    with pytest.raises(Precondition) as caught:
        await connect_pool(postgres.dsn("nosuch"), schema="room")
    assert caught.value.reason == "DATABASE_REFUSED"


async def test_nobody_there_is_unreachable_after_the_wait(tmp_path):
    with pytest.raises(Unreachable) as caught:
        await connect_pool(f"postgresql://u@/d?host={tmp_path}", schema="room", wait_s=0.2)
    assert caught.value.reason == "DATABASE_UNREACHABLE"


async def test_a_pool_waits_for_a_server_and_survives_its_restart(state_folder):
    server = EmbeddedPostgres(state_folder / "pg", sync=False)
    server.start()
    dsn = server.dsn()
    server.stop()
    waiting = asyncio.create_task(connect_pool(dsn, schema="public", wait_s=20))
    await asyncio.to_thread(server.start)
    pool = await waiting
    try:
        os.kill(server.pid, signal.SIGKILL)
        await eventually(lambda: server.pid is None)
        await asyncio.to_thread(server.start)

        async def answers():
            try:
                async with transaction(pool) as connection:
                    return await connection.fetchval("SELECT 1")
            except Unreachable:
                return None

        assert await eventually(answers) == 1
    finally:
        await pool.close()
        server.stop()
