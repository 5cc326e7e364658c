"""Nodes: how they join, what they have, and what is free of it."""

import grpc
import pytest
from gridlease.scheduler.v1 import fleet_pb2, sync_pb2
from gridlease.type.v1 import fleet_pb2 as type_fleet_pb2
from gridlease_mesh.credentials import new_user_key
from gridlease_mesh.status import fault_from_error

from tests.integration.scheduler.world import GIB


async def test_a_token_admits_one_key(world):
    await world.start()
    made = await world.fleet.CreateNodeToken(fleet_pb2.CreateNodeTokenRequest(node_id="host"))
    assert made.node == "nodes/host"
    keys = [new_user_key()[1] for _ in range(2)]
    first = await _enrol(world, made.token, keys[0])
    again = await _enrol(world, made.token, keys[0])
    assert first.node_id == again.node_id == "host"
    assert first.credential_jwt
    assert first.subject_prefix == world.prefix
    assert await _refused(world, made.token, keys[1]) == "NODE_TOKEN_USED"
    assert await _refused(world, "join-nonsense", keys[1]) == "NODE_TOKEN_UNKNOWN"


async def test_a_token_ends(world, pool):
    await world.start()
    made = await world.fleet.CreateNodeToken(fleet_pb2.CreateNodeTokenRequest())
    assert made.node.startswith("nodes/node-")
    await pool.execute("UPDATE node_token SET expires_at = now() - interval '1 s'")
    assert await _refused(world, made.token, new_user_key()[1]) == "NODE_TOKEN_EXPIRED"
    stored = await pool.fetchval("SELECT encode(hash, 'escape') FROM node_token")
    assert made.token not in stored


async def test_only_a_node_may_sync_and_only_as_itself(world):
    await world.start()
    agent = await world.agent("mine")
    await world.agent("other")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _sync_as_service(world)
    assert fault_from_error(caught.value).reason == "NOT_A_NODE"
    # The broker does not let a node speak under another's name.
    agent.bus.node_id = "other"
    from gridlease.scheduler.v1 import sync_pb2_grpc

    forged = sync_pb2_grpc.SyncServiceStub(agent.bus.channel(default_timeout_s=2))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await forged.SyncNode(sync_pb2.SyncNodeRequest(spool_id="s", boot_id="b"))
    assert caught.value.code() in (
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
    )


async def test_stock_is_what_leases_leave(world):
    await world.start()
    agent = await world.agent(cpu_milli=4_000, chips=["A100-80GB"] * 2)
    await world.agent("fake", cpu_milli=1_000, chips=["H100-80GB"], emulated=True)
    await world.submit(chips=["A100"])
    await agent.given()
    answer = await world.fleet.ListStock(fleet_pb2.ListStockRequest())
    rows = {(x.chip, x.emulated): (x.total_milli, x.free_milli) for x in answer.offers}
    assert rows == {
        ("A100-80GB", False): (2_000, 1_000),
        ("H100-80GB", True): (1_000, 1_000),
        ("cpu-x86-64", False): (4_000, 3_000),
        ("cpu-x86-64", True): (1_000, 1_000),
    }
    powers = {it.chip: it.peak_mw for it in answer.chips}
    assert set(powers) == {"A100-80GB", "H100-80GB", "cpu-x86-64"}
    assert min(powers.values()) > 0
    node = (await world.fleet.GetNode(fleet_pb2.GetNodeRequest(name="nodes/n1"))).node
    assert node.allocated.cpu_milli == 1_000
    assert list(node.allocated.device_ids) == ["gpu-0"]
    assert node.inventory.memory_bytes == 8 * GIB
    assert node.inventory.devices[0].lease


async def test_a_cordoned_node_takes_no_new_work(world):
    await world.start()
    agent = await world.agent()
    cordon = fleet_pb2.CordonNodeRequest(name="nodes/n1", cordoned=True)
    node = (await world.fleet.CordonNode(cordon)).node
    assert node.state == type_fleet_pb2.NODE_STATE_CORDONED
    job = await world.submit()
    await world.reason(job.name, "NODES_CORDONED")
    cordon.cordoned = False
    await world.fleet.CordonNode(cordon)
    assert (await agent.given()).task.startswith(job.name)


async def test_a_maintenance_window_ends_by_itself(world):
    await world.start()
    agent = await world.agent()
    cordon = fleet_pb2.CordonNodeRequest(name="nodes/n1", cordoned=True, note="fans", for_ms=900)
    node = (await world.fleet.CordonNode(cordon)).node
    assert (node.state, node.cordon_note) == (type_fleet_pb2.NODE_STATE_CORDONED, "fans")
    assert node.HasField("cordon_end_time")
    job = await world.submit()
    assert (await agent.given()).task.startswith(job.name)
    node = (await world.fleet.GetNode(fleet_pb2.GetNodeRequest(name="nodes/n1"))).node
    assert (node.state, node.cordon_note) == (type_fleet_pb2.NODE_STATE_READY, "")
    assert not node.HasField("cordon_end_time")


async def test_a_node_that_says_it_ails_takes_no_work(world, pool):
    await world.start()
    agent = await world.agent()
    ail = "UPDATE node SET inventory = jsonb_set(inventory, '{ailment}', to_jsonb($1::text))"
    await pool.execute(ail, "disk: it does not keep what is written")
    node = (await world.fleet.GetNode(fleet_pb2.GetNodeRequest(name="nodes/n1"))).node
    assert node.state == type_fleet_pb2.NODE_STATE_CORDONED
    assert node.cordon_note.startswith("disk: ")
    job = await world.submit()
    await world.reason(job.name, "NODES_CORDONED")
    await pool.execute(ail, "")
    assert (await agent.given()).task.startswith(job.name)


async def test_a_dirty_device_is_not_given_away(world):
    await world.start()
    agent = await world.agent(chips=["A100-80GB"])
    agent.devices["gpu-0"] = type_fleet_pb2.DEVICE_STATE_DIRTY
    await agent.sync()
    job = await world.submit(chips=["A100"])
    await world.reason(job.name, "DEVICE_DIRTY")
    agent.devices["gpu-0"] = type_fleet_pb2.DEVICE_STATE_CLEAN
    assert (await agent.given()).task.startswith(job.name)


async def test_a_node_that_nobody_admitted_is_turned_away(world, pool):
    await world.start()
    agent = await world.agent()
    await pool.execute("UPDATE node SET id = 'renamed'")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await agent.sync()
    assert fault_from_error(caught.value).reason == "NODE_NOT_ENROLLED"


async def _enrol(world, token, key):
    return await world.fleet.EnrolNode(fleet_pb2.EnrolNodeRequest(token=token, public_key=key))


async def _refused(world, token, key):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _enrol(world, token, key)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    return fault_from_error(caught.value).reason


async def _sync_as_service(world):
    from gridlease.scheduler.v1 import sync_pb2_grpc

    bus = await world.bus("gateway")
    stub = sync_pb2_grpc.SyncServiceStub(bus.channel())
    return await stub.SyncNode(sync_pb2.SyncNodeRequest(spool_id="s", boot_id="b"))
