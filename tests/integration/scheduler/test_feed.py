"""Watches: they tell each change, and come back where they stopped."""

import asyncio

from gridlease.scheduler.v1 import job_pb2
from gridlease.type.v1 import fleet_pb2
from gridlease.type.v1 import job_pb2 as type_job_pb2

from tests.integration.scheduler.world import PROJECT


async def test_a_job_is_watched_to_its_end(world):
    await world.start()
    agent = await world.agent()
    job = await world.submit()
    call = world.jobs.WatchJob(job_pb2.WatchJobRequest(project=PROJECT, name=job.name), timeout=30)
    seen = []

    async def watch():
        seen.extend([answer.job async for answer in call])

    watching = asyncio.create_task(watch())
    spec = await agent.given()
    await agent.run(spec.lease)
    await agent.end(spec.lease)
    await asyncio.wait_for(watching, 20)
    states = list(dict.fromkeys(type_job_pb2.JobState.Name(each.state) for each in seen))
    assert states[-2:] == ["JOB_STATE_RUNNING", "JOB_STATE_SUCCEEDED"]
    revisions = [each.revision for each in seen]
    assert revisions == sorted(set(revisions))


async def test_events_resume_by_their_sequence(world, pool):
    stop = await world.start()
    for _ in range(3):
        await world.submit()
    got = await _watch(world, 0, 2)
    await stop()
    await world.start()
    await world.submit()
    got += await _watch(world, got[-1].sequence, 2)
    rows = await pool.fetch("SELECT sequence FROM event WHERE project = $1 ORDER BY 1", PROJECT)
    assert [event.sequence for event in got] == [row["sequence"] for row in rows][:4]
    assert {event.type for event in got} == {"job.submitted"}


async def test_an_event_behind_an_open_transaction_is_not_skipped(store, pool):
    """One with a lower number may still be committed: the later one is not shown before it."""
    from gridlease_scheduler.ports import Event, EventQuery

    query = EventQuery("", "", 0, 10)

    async def visible():
        async with store.reading() as tx:
            return [event.entity for event in await tx.events.after(query)]

    async with store.writing() as early:
        await early.events.tell(Event("job.a", "early"))
        async with store.writing() as late:
            await late.events.tell(Event("job.b", "late"))
        assert await visible() == []
    assert await visible() == ["early", "late"]


async def test_events_and_hints_go_out_over_the_mesh(world):
    await world.start()
    bus = await world.bus("listener")
    heard = asyncio.Queue()
    bus.subscribe("events.>", lambda _subject, payload: heard.put_nowait(payload))
    await bus.flush()
    agent = await world.agent()
    hinted = asyncio.Event()
    agent.bus.subscribe("hint.n1", lambda _subject, _payload: hinted.set())
    await agent.bus.flush()
    job = await world.submit()
    await asyncio.wait_for(hinted.wait(), 10)
    types = []
    while "job.placed" not in types:
        event = fleet_pb2.Event.FromString(await asyncio.wait_for(heard.get(), 10))
        if event.entity == job.name:
            types.append(event.type)
    assert types[0] == "job.submitted"


async def _watch(world, after, count):
    call = world.jobs.WatchEvents(
        job_pb2.WatchEventsRequest(project=PROJECT, after_sequence=after), timeout=30
    )
    got = []
    async for answer in call:
        got.append(answer.event)
        if len(got) == count:
            call.cancel()
            break
    return got
