"""Jobs of several tasks, nodes that are emptied, and places that are taken, over the real mesh."""

import pytest
from gridlease.scheduler.v1 import fleet_pb2, job_pb2
from gridlease.type.v1 import fleet_pb2 as type_fleet_pb2
from gridlease.type.v1 import job_pb2 as type_job_pb2
from gridlease_mesh.status import fault_from_error
from gridlease_scheduler.adapters.store import PostgresStore
from gridlease_scheduler.domain.job import Reason
from gridlease_scheduler.domain.lease import Cause
from gridlease_scheduler.evict import Ending, Evict
from gridlease_testkit.waiting import eventually

from tests.integration.scheduler.world import PROJECT, request

TWO = {"nodes": {"min": 2, "max": 2}, "cpu_milli": 3_000}


async def gang(world, **fields):
    """A gang of two on two nodes: the job, and (agent, lease spec) by index."""
    await world.start()
    agents = [await world.agent(f"n{number}") for number in (1, 2)]
    job = await world.submit(**(TWO | fields))
    given = [(agent, await agent.given()) for agent in agents]
    return job, sorted(given, key=lambda it: it[1].gang_index)


async def stopped(agent, lease):
    """The stop that the node is told of, once it is."""

    async def asked():
        return next((it for it in (await agent.sync()).stop if it.lease == lease), None)

    return await eventually(asked, what=f"the word to end {lease}")


async def types_of(pool, name):
    rows = await pool.fetch("SELECT type FROM event WHERE entity = $1 ORDER BY sequence", name)
    return [row["type"] for row in rows]


async def test_a_gang_starts_together_knows_its_peers_and_ends_when_all_have(world, pool):
    job, [(one, first), (two, second)] = await gang(world)
    assert [first.gang_size, first.gang_index, second.gang_index] == [2, 0, 1]
    assert [(it.index, it.node, it.hostname) for it in first.peers] == [
        (0, one.node_id, one.node_id), (1, two.node_id, two.node_id),
    ]  # fmt: skip
    assert first.peers == second.peers
    await one.run(first.lease)
    assert not (await world.get(job.name)).HasField("ready_time")
    await two.run(second.lease)
    assert (await world.get(job.name)).HasField("ready_time")
    await one.end(first.lease)

    async def half():
        now = await world.get(job.name)
        return now if now.tasks[0].state != now.tasks[1].state else None

    now = await eventually(half, what="one of two tasks has ended")
    assert now.state == now.tasks[1].state
    assert not (await two.sync()).stop  # who is done takes nobody along
    await two.end(second.lease)
    done = await world.until(job.name, "SUCCEEDED")
    assert [task.exit_code for task in done.tasks] == [0, 0]
    assert await types_of(pool, job.name) == [
        "job.submitted", "job.placed", "job.ready", "job.exited", "job.task_ended", "job.exited",
        "job.succeeded",
    ]  # fmt: skip


async def test_a_member_that_fails_takes_the_others_along(world):
    job, [(one, first), (two, second)] = await gang(world, notice_ms=5_000)
    await one.run(first.lease)
    await two.run(second.lease)
    await two.end(second.lease, code=9)
    stop = await stopped(one, first.lease)
    assert (stop.reason.code, stop.notice_ms) == ("GANG_ENDED", 5_000)
    assert "Task 1 failed" in stop.reason.message
    assert stop.HasField("deadline")
    assert (await world.get(job.name)).state == type_job_pb2.JOB_STATE_RUNNING
    await one.end(first.lease, code=143, reason="STOPPED")
    failed = await world.until(job.name, "FAILED")
    assert failed.reason.message == "Task 1 of 2: The task exited with code 9."
    assert [task.reason.code for task in failed.tasks] == ["GANG_ENDED", "EXITED"]


async def test_a_lost_node_places_the_whole_gang_again(world):
    _job, [(one, first), (two, second)] = await gang(world, lost_after_ms=3_000)
    await one.run(first.lease)
    await two.run(second.lease)
    stop = await stopped(one, first.lease)  # the other has fallen silent
    assert stop.reason.code == "GANG_ENDED"
    assert "fell silent" in stop.reason.message
    await one.end(first.lease, code=143, reason="STOPPED")
    # It waits for no longer than a pass takes: only what comes next can be waited for.
    two.leases.clear()
    again = [await two.given(), await one.given()]
    assert set(world.billing.closed) == {first.lease, second.lease}
    assert {it.attempt for it in again} == {2}
    assert not {it.lease for it in again} & {first.lease, second.lease}


async def test_a_cancelled_gang_ends_as_a_whole(world):
    job, [(one, first), (two, second)] = await gang(world)
    await world.jobs.CancelJob(job_pb2.CancelJobRequest(project=PROJECT, name=job.name))
    for agent, spec in ((one, first), (two, second)):
        assert (await stopped(agent, spec.lease)).reason.code == "STOPPED"
        await agent.end(spec.lease, code=143, reason="STOPPED")
    cancelled = await world.until(job.name, "CANCELLED")
    assert {task.reason.code for task in cancelled.tasks} == {"CANCELLED"}


async def test_a_drained_node_moves_its_jobs_on_with_their_checkpoint(world, pool):
    await world.start()
    one = await world.agent("n1")
    job = await world.submit(notice_ms=2_000)
    spec = await one.given()
    two = await world.agent("n2")
    one.see(spec.lease, "STARTING", running=True)
    one.leases[spec.lease].checkpoint.id = "step-1200"
    await one.sync()
    answer = await world.fleet.DrainNode(
        fleet_pb2.DrainNodeRequest(name="nodes/n1", notice_ms=9_000, note="new memory")
    )
    assert (answer.node.state, list(answer.jobs)) == (
        type_fleet_pb2.NODE_STATE_DRAINING,
        [job.name],
    )
    stop = await stopped(one, spec.lease)
    assert (stop.reason.code, stop.notice_ms) == ("DRAINED", 9_000)
    assert "new memory" in stop.reason.message
    # Said again it changes nothing.
    again = await world.fleet.DrainNode(fleet_pb2.DrainNodeRequest(name="nodes/n1"))
    assert not again.jobs
    await one.end(spec.lease, code=143, reason="STOPPED")
    moved = await two.given()
    assert (moved.attempt, moved.checkpoint) == (2, "step-1200")
    now = await world.get(job.name)
    assert (now.evictions, now.tasks[0].checkpoint.id) == (1, "step-1200")
    types = await types_of(pool, job.name)
    assert "job.drained" in types
    assert "job.reclaim_credit" not in types  # it ended in answer to the warning


async def test_a_warning_that_is_cut_short_is_credited(world, pool):
    await world.start()
    agent = await world.agent()
    job = await world.submit(notice_ms=60_000)
    spec = await agent.given()
    await agent.run(spec.lease)
    evict = Evict(PostgresStore(pool, disconnected_ms=30_000))
    reason = Reason("PREEMPTED", "A job of priority 90 needs its place.")
    assert await evict([Ending(job.name, Cause.PREEMPTED, reason, attempt=1)], None)
    assert not await evict([Ending(job.name, Cause.PREEMPTED, reason, attempt=1)], None)
    await stopped(agent, spec.lease)
    counts = await pool.fetchrow("SELECT evictions, evicted_in_all FROM job")
    assert tuple(counts) == (1, 1)
    await agent.end(spec.lease, code=137, reason="STOPPED")
    await eventually(agent.given, what="its next attempt")
    row = await pool.fetchrow("SELECT facts FROM event WHERE type = 'job.reclaim_credit'")
    assert row["facts"]["lease"] == spec.lease
    assert 50_000 < int(row["facts"]["missing_ms"]) <= 60_000
    owed = 48_000_000 * int(row["facts"]["missing_ms"]) // 3_600_000
    assert int(row["facts"]["amount_nano"]) == owed


async def test_a_group_is_evicted_whole_or_not_at_all(world, pool):
    await world.start()
    agent = await world.agent()
    jobs = [await world.submit(cpu_milli=1_000) for _ in range(2)]
    await eventually(lambda: _both(agent), what="both leases")
    evict = Evict(PostgresStore(pool, disconnected_ms=30_000))
    reason = Reason("PREEMPTED", "Their places are needed.")
    endings = [Ending(it.name, Cause.PREEMPTED, reason) for it in jobs]
    gone = Ending("projects/demo/jobs/none", Cause.PREEMPTED, reason)
    assert not await evict([*endings, gone], None)
    assert len((await agent.sync()).run) == 2
    assert await evict(endings, None)
    assert len((await agent.sync()).stop) == 2


async def test_a_resized_job_comes_back_with_another_number_of_tasks(world, pool):
    await world.start()
    one, two = await world.agent("n1"), await world.agent("n2")
    job = await world.submit(nodes={"min": 1, "max": 2}, cpu_milli=3_000)
    agent = await eventually(lambda: _holder(one, two), what="the only lease")
    [spec] = (await agent.sync()).run
    assert spec.gang_size == 1
    evict = Evict(PostgresStore(pool, disconnected_ms=30_000))
    reason = Reason("RESIZED", "Two tasks do more than twice as much.")
    assert await evict([Ending(job.name, Cause.PREEMPTED, reason, tasks=2)], None)
    assert (await stopped(agent, spec.lease)).reason.code == "RESIZED"
    counts = await pool.fetchrow("SELECT evictions, evicted_in_all FROM job")
    assert tuple(counts) == (0, 1)  # it was arranged for it: no disturbance
    await agent.end(spec.lease, code=143, reason="STOPPED")
    grown = [await one.given(), await two.given()]
    assert {(it.attempt, it.gang_size) for it in grown} == {(2, 2)}


async def test_a_job_that_would_not_wait_again_fails_when_its_place_is_taken(world, pool):
    await world.start()
    agent = await world.agent()
    job = await world.submit(preemption_policy="PREEMPTION_POLICY_FAIL")
    spec = await agent.given()
    evict = Evict(PostgresStore(pool, disconnected_ms=30_000))
    reason = Reason("PREEMPTED", "A job of priority 90 needs its place.")
    assert await evict([Ending(job.name, Cause.PREEMPTED, reason)], None)
    await agent.end(spec.lease, code=143, reason="STOPPED")
    failed = await world.until(job.name, "FAILED")
    assert failed.reason.code == "PREEMPTED"


async def test_a_dry_run_keeps_nothing_and_says_where_and_why(world, pool):
    await world.start()
    await world.agent("n1", chips=("A100-80GB",) * 2)
    wanted = request(chips=("A100-80GB",), count=2)
    ask = job_pb2.PlanJobRequest(tenant=wanted.tenant, project=wanted.project, spec=wanted.spec)
    plan = await world.jobs.PlanJob(ask)
    assert (plan.placeable, plan.reason.code) == (True, "PLACED")
    [place] = plan.placements
    assert (place.node, place.site, place.allocation.quantity_milli) == (
        "nodes/n1", "sites/local", 2_000,
    )  # fmt: skip
    ask.spec.nodes.min = 2
    plan = await world.jobs.PlanJob(ask)
    assert (plan.placeable, plan.reason.code) == (False, "GANG_DOES_NOT_FIT")
    assert plan.remedies
    assert not plan.HasField("earliest_start_time")
    assert await pool.fetchval("SELECT count(*) FROM job") == 0
    ask.spec.resources.accelerator.chips[:] = ["A1000"]
    with pytest.raises(Exception) as caught:  # noqa: PT011 - the fault is looked at
        await world.jobs.PlanJob(ask)
    assert fault_from_error(caught.value).reason == "UNKNOWN_CHIP"


async def test_a_job_that_waits_for_others_is_told_when_it_starts_at_the_latest(world):
    await world.start()
    agent = await world.agent("n1", chips=("A100-80GB",))
    first = await world.submit(chips=("A100-80GB",), max_duration_ms=600_000)
    spec = await agent.given()
    await agent.run(spec.lease)
    second = await world.submit(chips=("A100-80GB",))
    await world.reason(second.name, "CHIP_BUSY")
    told = await world.explain(second.name)
    placed = await world.get(first.name)
    waits_s = told.earliest_start_time.seconds - placed.place_time.seconds
    assert 600 <= waits_s <= 800
    assert [it.chip for it in told.options if it.asked_for] == ["A100-80GB"]
    runs = await world.explain(first.name)
    assert (runs.placements[0].node, runs.reason.code) == ("nodes/n1", "PLACED")


async def _both(agent):
    return len((await agent.sync()).run) == 2


async def _holder(*agents):
    for agent in agents:
        if (await agent.sync()).run:
            return agent
    return None
