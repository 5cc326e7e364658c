"""Nodes that fall silent, come back, lose their disk or restart."""

from gridlease.billing.v1 import lease_pb2
from gridlease_testkit.waiting import eventually

QUICK = {"disconnected_after_ms": 400, "slow_tick_ms": 200}


async def test_a_silent_nodes_task_is_placed_elsewhere(world):
    await world.start(**QUICK)
    lost = await world.agent("lost")
    job = await world.submit(lost_after_ms=900)
    first = await lost.given()
    await lost.run(first.lease)
    world.billing.wait_ms = 300
    reason = await world.reason(job.name, "NODE_LOST")
    assert reason.evidence["node"] == "lost"
    other = await world.agent("other")
    second = await other.given()
    assert second.task == first.task
    assert second.attempt == 2
    assert second.lease != first.lease
    assert world.billing.closed[first.lease].cause == lease_pb2.CLOSE_CAUSE_NODE_LOST
    # The lost node comes back and is told to stop; its late end changes nothing.
    answer = await lost.sync()
    assert not answer.run
    await lost.end(first.lease, code=1, reason="DEADLINE")
    await other.end(second.lease)
    done = await world.until(job.name, "SUCCEEDED")
    assert done.tasks[0].attempt == 2


async def test_attempts_have_an_end(world):
    await world.start()
    agent = await world.agent()
    job = await world.submit(max_attempts=2)
    for attempt in (1, 2):
        spec = await agent.given()
        assert spec.attempt == attempt
        await agent.end(spec.lease, code=-1, reason="NODE_REBOOT")
    failed = await world.until(job.name, "FAILED")
    assert failed.reason.code == "NODE_REBOOT"
    assert "max_attempts" in failed.reason.hint


async def test_a_new_spool_loses_what_the_old_one_had(world):
    await world.start()
    agent = await world.agent()
    job = await world.submit()
    first = await agent.given()
    await agent.run(first.lease)
    agent.spool_id, agent.generation, agent.leases = "another", 0, {}
    answer = await agent.sync()
    assert [stop.lease for stop in answer.stop] == [first.lease]
    second = await agent.given()
    assert (second.task, second.attempt) == (first.task, 2)
    await agent.end(second.lease)
    await world.until(job.name, "SUCCEEDED")


async def test_a_lease_unknown_to_the_old_spool_runs_on_the_new_one(world):
    await world.start()
    agent = await world.agent()
    job = await world.submit()
    first = await agent.given()  # told, and lost with the disk before it was ever reported
    agent.spool_id, agent.generation = "another", 0
    answer = await agent.sync()
    assert [each.lease for each in answer.run] == [first.lease]
    await agent.end(first.lease)
    await world.until(job.name, "SUCCEEDED")


async def test_absence_is_no_evidence_and_phases_only_go_up(world, pool):
    await world.start()
    agent = await world.agent()
    await world.submit()
    spec = await agent.given()
    await agent.run(spec.lease)
    late = dict(agent.leases)
    agent.leases = {}  # a doubled report from before the lease was known
    answer = await agent.sync()
    assert [each.lease for each in answer.run] == [spec.lease]
    agent.see(spec.lease, "EXITED", code=0)
    before = (await agent.sync()).generation
    agent.leases = late  # a late copy
    assert (await agent.sync()).generation >= before
    row = await pool.fetchrow("SELECT state, phase FROM lease")
    assert row["state"] != "ACTIVE"
    assert row["phase"] == 3


async def test_a_disconnected_node_gets_no_new_work(world):
    await world.start(**QUICK)
    agent = await world.agent()

    async def silent():
        nodes = await world.fleet.ListNodes(_list())
        return nodes.nodes[0].state == _state("DISCONNECTED")

    await eventually(silent, what="the node is disconnected")
    job = await world.submit()
    reason = await world.reason(job.name, "NODES_DISCONNECTED")
    assert "heard" in reason.message
    spec = await agent.given()
    assert spec.task.startswith(job.name)


async def test_a_node_that_stays_silent_counts_as_lost(world):
    await world.start(**QUICK, lost_after_ms=1_200)
    agent = await world.agent()

    async def standing(state):
        nodes = await world.fleet.ListNodes(_list())
        return nodes.nodes[0].state == _state(state)

    await eventually(lambda: standing("LOST"), what="the node is lost")
    await agent.sync()
    assert await standing("READY")


async def test_the_generation_never_falls(world):
    await world.start()
    agent = await world.agent(chips=["A100-80GB"] * 2)
    seen = [agent.generation]
    for _ in range(3):
        job = await world.submit(chips=["A100"])
        spec = await agent.given()
        await agent.end(spec.lease)
        await world.until(job.name, "SUCCEEDED")
        seen.append((await agent.sync()).generation)
    assert seen == sorted(seen)
    assert len(set(seen)) == len(seen)


def _list():
    from gridlease.scheduler.v1 import fleet_pb2

    return fleet_pb2.ListNodesRequest()


def _state(name):
    from gridlease.type.v1 import fleet_pb2

    return fleet_pb2.NodeState.Value(f"NODE_STATE_{name}")
