"""The scheduler outlives its broker and its database, and stops cleanly."""

import contextlib
import os
import signal

import grpc
import pytest
from gridlease_mesh.embedded import EmbeddedNats
from gridlease_store.processes import servers_in
from gridlease_testkit.postgres import start_server
from gridlease_testkit.waiting import eventually

from tests.integration.scheduler.process import scheduler_process
from tests.integration.scheduler.world import World


@pytest.fixture
def own_postgres(state_folder):
    """A server that this test may kill."""
    server = start_server(state_folder / "pg")
    yield server
    server.stop(timeout_s=5.0)


@pytest.fixture
def own_nats(state_folder):
    """A broker that this test may kill."""
    with EmbeddedNats(state_folder / "nats") as server:
        yield server


@contextlib.asynccontextmanager
async def running(world):
    await world.begin()
    yield
    await world.end()


@pytest.fixture
async def stack():
    async with contextlib.AsyncExitStack() as stack:
        yield stack


async def test_the_database_is_killed_and_comes_back(nats, own_postgres, state_folder, stack):
    world = World(nats, own_postgres.dsn(), state_folder)
    await stack.enter_async_context(running(world))
    with scheduler_process(world):
        agent = await world.agent()
        first = await world.submit("first")
        spec = await agent.given()
        os.kill(own_postgres.pid, signal.SIGKILL)
        # Its backends may answer once more before they notice.
        await eventually(lambda: not servers_in(own_postgres.data), 10, "every backend is gone")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await world.submit("second")
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        own_postgres.start()

        async def answered():
            try:
                return await agent.end(spec.lease)
            except grpc.aio.AioRpcError:
                return None

        await eventually(answered, 20, "the database is back")
        await world.until(first.name, "SUCCEEDED", 20)
        second = await world.submit("second")
        assert (await agent.given()).task.startswith(second.name)


async def test_the_broker_is_killed_and_comes_back(dsn, own_nats, state_folder, stack):
    world = World(own_nats, dsn, state_folder)
    await stack.enter_async_context(running(world))
    with scheduler_process(world):
        agent = await world.agent()
        job = await world.submit()
        spec = await agent.given()
        own_nats.kill()
        own_nats.start()

        async def answered():
            try:
                return await agent.end(spec.lease)
            except grpc.aio.AioRpcError:
                return None

        await eventually(answered, 20, "the broker is back")
        await world.until(job.name, "SUCCEEDED", 20)


async def test_it_stops_cleanly_when_asked(world):
    with scheduler_process(world) as process:
        await world.submit()
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 0
    assert not (world.folder / "ready").exists()


async def test_it_waits_for_a_database_that_is_not_there_yet(
    nats, own_postgres, state_folder, stack
):
    dsn = own_postgres.dsn()
    own_postgres.stop(timeout_s=5.0)
    world = World(nats, dsn, state_folder)
    await stack.enter_async_context(running(world))
    with scheduler_process(world, wait=False) as process:
        log = state_folder / "scheduler.log"
        await eventually(lambda: "waiting for the database" in log.read_text(), 60, "it waits")
        own_postgres.start()
        await eventually((state_folder / "ready").exists, 30, "it serves")
        assert process.poll() is None
