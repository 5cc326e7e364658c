"""The scheduler's events, from its database to a consumer."""

import asyncio
import dataclasses

import pytest
from gridlease.scheduler.v1 import fleet_pb2_grpc, job_pb2, job_pb2_grpc
from gridlease.type.v1 import fleet_pb2
from gridlease_mesh import trace
from gridlease_mesh.consumer import Marks
from gridlease_mesh.embedded import EmbeddedNats
from gridlease_mesh.feed import FeedTerms
from gridlease_mesh.jetstream import JetStream
from gridlease_testkit.waiting import eventually

from tests.integration.feed.history import Listener, running
from tests.integration.scheduler.world import PROJECT, World


@pytest.fixture
async def world(nats, database, tmp_path):
    made = World(nats, database, tmp_path)
    await made.begin()
    yield made
    await made.end()


async def listed(world, count):
    """The events that the scheduler lists, once there are so many."""

    async def enough():
        answer = await world.jobs.ListEvents(job_pb2.ListEventsRequest(page_size=1000))
        found = [event.sequence for event in answer.events]
        return found if len(found) >= count else None

    return await eventually(enough)


async def test_every_committed_event_reaches_a_consumer(world):
    await world.start()
    terms = FeedTerms(prefix=world.prefix)
    bus = await world.bus("reader")
    listener = Listener(bus, "reader", terms)
    async with running(listener.consumer):
        context = trace.new_trace()
        with trace.use(context):
            job = await world.submit()
        await asyncio.gather(*(world.submit() for _ in range(10)))
        wanted = await listed(world, 11)
        await eventually(lambda: set(wanted) <= set(listener.sequences))
        assert listener.sequences == sorted(listener.sequences)
        mine = next(heard for heard in listener.heard if heard.entity == job.name)
        event = fleet_pb2.Event.FromString(mine.payload)
        assert (event.sequence, event.type, event.project) == (mine.sequence, mine.topic, PROJECT)
        assert mine.headers["traceparent"].split("-")[1] == context.trace_id

        jetstream = JetStream(bus)
        await jetstream.api(f"STREAM.DELETE.{terms.stream}")
        await world.submit()
        wanted = await listed(world, 12)
        await eventually(lambda: set(wanted) <= set(listener.sequences), timeout_s=20.0)
        jetstream.close()
    marks = Marks()
    applied = [h.sequence for h in listener.heard if marks.apply(h.entity, h.sequence)]
    assert set(applied) == set(wanted)
    assert len(applied) == len(set(applied))


async def test_a_new_leader_goes_on_with_the_feed(world):
    stop = await world.start()
    bus = await world.bus("reader")
    listener = Listener(bus, "reader", FeedTerms(prefix=world.prefix))
    async with running(listener.consumer):
        await world.submit()
        await eventually(lambda: listener.heard)
        await stop()
        await world.start()
        await world.submit()
        wanted = await listed(world, 2)
        await eventually(lambda: set(wanted) <= set(listener.sequences))
    assert len(listener.sequences) == len(set(listener.sequences))


async def test_the_scheduler_feeds_with_its_role_alone(database, state_folder):
    """On a broker of its own, under the usual prefix and with a scheduler's rights only."""
    with EmbeddedNats(state_folder / "nats") as broker:
        world = World(broker, database, state_folder)
        world.prefix = "gl"
        world.settings = dataclasses.replace(
            world.settings,
            subject_prefix="gl",
            nats_creds=broker.role_creds("scheduler"),
            nats_account_seed=broker.authority.signing_seed,
        )
        try:
            await world.begin()
            door = (await world.bus("gateway", creds=broker.role_creds("gateway"))).channel()
            world.jobs = job_pb2_grpc.JobServiceStub(door)
            world.fleet = fleet_pb2_grpc.FleetServiceStub(door)
            await world.start()
            reader = await world.bus("operator", creds=broker.role_creds("operator"))
            listener = Listener(reader, "operator", FeedTerms())
            async with running(listener.consumer):
                await world.submit()
                agent = await world.agent("n1")
                await agent.sync()
                await eventually(lambda: len(listener.heard) >= 2)
        finally:
            await world.end()
