"""The fixtures that other rooms' tests stand on."""

import asyncpg
import pytest
from gridlease_testkit.ports import free_port
from gridlease_testkit.waiting import eventually, eventually_sync


async def test_each_database_is_its_own(postgres, database):
    connection = await asyncpg.connect(database)
    await connection.execute("CREATE TABLE mine (id int)")
    await connection.close()
    other = await postgres.create()
    connection = await asyncpg.connect(postgres.dsn(other))
    assert await connection.fetchval("SELECT to_regclass('mine')") is None
    await connection.close()
    await postgres.drop(other)


async def test_a_template_is_built_once(postgres):
    built = []

    async def build(dsn):
        built.append(dsn)
        connection = await asyncpg.connect(dsn)
        await connection.execute("CREATE TABLE ready (id int)")
        await connection.close()

    for _ in range(2):
        name = await postgres.create(await postgres.template("ready", build))
        connection = await asyncpg.connect(postgres.dsn(name))
        assert await connection.fetchval("SELECT count(*) FROM ready") == 0
        await connection.close()
        await postgres.drop(name)
    assert len(built) == 1


async def test_the_bus_carries(bus):
    heard = []
    bus.subscribe("test.a", lambda subject, payload: heard.append((subject, payload)))
    bus.publish("test.a", b"x")
    await bus.flush()
    assert await eventually(lambda: heard) == [("test.a", b"x")]


async def test_waiting_in_vain_says_for_what():
    with pytest.raises(AssertionError, match="the moon"):
        await eventually(lambda: 0, timeout_s=0.01, what="the moon")
    with pytest.raises(AssertionError, match="the moon"):
        eventually_sync(lambda: 0, timeout_s=0.01, what="the moon")


async def test_waiting_takes_plain_and_async_answers():
    async def three():
        return 3

    assert await eventually(three) == 3
    assert eventually_sync(lambda: 4) == 4


def test_a_short_folder_and_a_free_port(state_folder):
    assert len(str(state_folder)) < 30
    assert 1024 <= free_port() < 65536
