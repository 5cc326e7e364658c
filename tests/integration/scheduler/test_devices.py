"""Devices that ail are out of stock; what a node wiped stays with the lease, checked."""

import pytest
from gridlease.scheduler.v1 import fleet_pb2, sync_pb2
from gridlease_agent.adapters.mesh_calls import receipt
from gridlease_agent.domain.spool import Wiped
from gridlease_mesh.credentials import new_user_key
from gridlease_mesh.signatures import Signer
from gridlease_testkit.waiting import eventually

_WIPED = (Wiped("gpu-0", "pattern-readback", 5), Wiped("scratch", "deleted", 3))


async def _stock(world):
    answer = await world.fleet.ListStock(fleet_pb2.ListStockRequest())
    return {x.chip: (x.total_milli, x.free_milli) for x in answer.offers}


async def test_a_device_that_ails_is_out_of_stock_and_comes_back(world, pool):
    await world.start()
    agent = await world.agent(chips=["A100-80GB"] * 2)
    assert (await _stock(world))["A100-80GB"] == (2_000, 2_000)
    await agent.report(chips=["A100-80GB"] * 2, ailments={"gpu-0": "scrub-failed: no"})
    await agent.sync()  # it says clean: its ailment counts all the same
    assert (await _stock(world))["A100-80GB"] == (1_000, 1_000)
    node = (await world.fleet.GetNode(fleet_pb2.GetNodeRequest(name="nodes/n1"))).node
    assert node.inventory.devices[0].ailment == "scrub-failed: no"
    await world.submit(chips=["A100"])
    given = await agent.given()
    assert list(given.allocation.device_ids) == ["gpu-1"]
    await agent.report(chips=["A100-80GB"] * 2)
    assert (await _stock(world))["A100-80GB"] == (2_000, 1_000)
    told = await pool.fetch("SELECT type, facts FROM event WHERE type LIKE 'device.%' ORDER BY 1")
    assert [row["type"] for row in told] == ["device.ailing", "device.well"]


async def test_a_job_that_waits_for_a_device_that_ails_says_so(world):
    await world.start()
    agent = await world.agent(chips=["A100-80GB"])
    await agent.report(chips=["A100-80GB"], ailments={"gpu-0": "scrub-failed: no"})
    job = await world.submit(chips=["A100"])

    async def told():
        reason = (await world.get(job.name)).reason
        return reason if reason.code else None

    reason = await eventually(told, 10.0)
    assert reason.code == "DEVICE_AILING"
    assert "could not be wiped" in reason.message
    await agent.report(chips=["A100-80GB"])
    assert list((await agent.given()).allocation.device_ids) == ["gpu-0"]


@pytest.mark.parametrize("whose", ["its own", "another's", "nobody's"])
async def test_a_receipt_is_kept_once_and_says_whether_the_node_signed_it(world, pool, whose):
    await world.start()
    agent = await world.agent(chips=["A100-80GB"])
    name = (await world.submit(chips=["A100"])).name
    lease_id = (await agent.given()).lease
    seed, public_key = new_user_key()
    if whose == "its own":
        await pool.execute("UPDATE node SET public_key = $1", public_key)
    signer = None if whose == "nobody's" else Signer(seed)
    made = receipt(lease_id, _WIPED, signer)
    agent.leases[lease_id] = sync_pb2.LeaseObservation(
        lease=lease_id, phase=sync_pb2.LEASE_PHASE_CLEAN, receipt=made
    )
    await agent.sync()
    await agent.sync()
    kept = await pool.fetchval("SELECT wipe_receipt FROM lease WHERE id = $1", lease_id)
    assert sync_pb2.WipeReceipt.FromString(kept) == made
    events = await pool.fetch("SELECT entity, facts FROM event WHERE type = 'lease.wiped'")
    (told,) = events
    assert told["entity"] == name
    assert told["facts"]["wiped"] == "gpu-0:pattern-readback,scratch:deleted"
    assert told["facts"]["signed"] == ("true" if whose == "its own" else "false")


async def test_a_receipt_of_another_nodes_lease_is_nothing(world, pool):
    await world.start()
    agent = await world.agent(chips=["A100-80GB"])
    other = await world.agent("n2", cpu_milli=1_000)
    await world.submit(chips=["A100"])
    lease_id = (await agent.given()).lease
    other.leases[lease_id] = sync_pb2.LeaseObservation(
        lease=lease_id, phase=sync_pb2.LEASE_PHASE_CLEAN, receipt=receipt(lease_id, _WIPED, None)
    )
    await other.sync()
    assert await pool.fetchval("SELECT wipe_receipt FROM lease WHERE id = $1", lease_id) is None
