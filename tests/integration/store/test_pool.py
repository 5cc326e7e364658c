"""Pools and transactions on a real server."""

import asyncpg
import pytest
from gridlease_kernel.faults import Unreachable
from gridlease_store.pool import connect_pool, transaction


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
    with pytest.raises(RuntimeError):
        async with transaction(pool) as connection:
            await connection.execute("INSERT INTO thing VALUES (1, 0)")
            raise RuntimeError
    assert await pool.fetchval("SELECT count(*) FROM thing") == 0


async def test_a_constraint_passes_through(pool):
    async with transaction(pool) as connection:
        await connection.execute("INSERT INTO thing VALUES (1, 0)")
    with pytest.raises(asyncpg.UniqueViolationError):
        async with transaction(pool) as connection:
            await connection.execute("INSERT INTO thing VALUES (1, 0)")


async def test_a_killed_backend_is_unreachable_and_the_pool_recovers(pool):
    with pytest.raises(Unreachable) as caught:
        async with transaction(pool) as connection:
            pid = await connection.fetchval("SELECT pg_backend_pid()")
            await pool.execute("SELECT pg_terminate_backend($1)", pid)
            await connection.execute("INSERT INTO thing VALUES (1, 0)")
    assert caught.value.reason == "DATABASE_UNREACHABLE"
    assert await pool.fetchval("SELECT count(*) FROM thing") == 0


async def test_a_backend_killed_before_its_commit_leaves_the_outcome_unknown(pool):
    with pytest.raises(Unreachable) as caught:
        async with transaction(pool) as connection:
            await connection.execute("INSERT INTO thing VALUES (1, 0)")
            pid = await connection.fetchval("SELECT pg_backend_pid()")
            await pool.execute("SELECT pg_terminate_backend($1, 5000)", pid)
    assert caught.value.reason == "COMMIT_OUTCOME_UNKNOWN"


async def test_a_slow_statement_is_unreachable_and_the_connection_dropped(database):
    pool = await connect_pool(database, schema="public", command_timeout_s=0.2, max_size=1)
    with pytest.raises(Unreachable):
        async with transaction(pool) as connection:
            await connection.execute("SELECT pg_sleep(5)")
    assert await pool.fetchval("SELECT 1") == 1
    await pool.close()
