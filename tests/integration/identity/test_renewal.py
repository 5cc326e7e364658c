"""A node's credential through its life: renewed, outlived, ended. Real broker and scheduler."""

import asyncio
import datetime
import random

import grpc.aio
import pytest
from gridlease.gateway.v1 import gateway_pb2, gateway_pb2_grpc
from gridlease.scheduler.v1 import fleet_pb2, sync_pb2, sync_pb2_grpc
from gridlease_agent.adapters.enrolment import CredentialFile, join
from gridlease_agent.adapters.mesh_calls import SchedulerCalls
from gridlease_agent.renewal import Renewal
from gridlease_kernel.clock import SystemClock
from gridlease_kernel.faults import Forbidden, Unauthenticated, Unreachable
from gridlease_mesh.bus import Bus
from gridlease_mesh.credentials import claims_of, public_key_of
from gridlease_mesh.interceptors import FaultsToStatus
from gridlease_mesh.status import fault_from_error
from gridlease_testkit.ports import free_port
from gridlease_testkit.waiting import eventually

from tests.integration.scheduler.world import World

SOON_S = 15.0


@pytest.fixture
async def world(nats, database, state_folder):
    made = World(nats, database, state_folder)
    await made.begin()
    yield made
    await made.end()


class Door(gateway_pb2_grpc.FleetServiceServicer):
    """The gateway's part: it passes the enrolment on."""

    def __init__(self, fleet):
        self._fleet = fleet

    async def EnrolNode(self, request, context):  # noqa: N802
        inner = fleet_pb2.EnrolNodeRequest(token=request.token, public_key=request.public_key)
        try:
            answer = await self._fleet.EnrolNode(inner)
        except grpc.aio.AioRpcError as error:
            raise fault_from_error(error) from error
        return gateway_pb2.EnrolNodeResponse(
            node_id=answer.node_id,
            nats_url=answer.nats_url,
            credential_jwt=answer.credential_jwt,
            subject_prefix=answer.subject_prefix,
        )


@pytest.fixture
async def door(world):
    server = grpc.aio.server(interceptors=(FaultsToStatus(),))
    gateway_pb2_grpc.add_FleetServiceServicer_to_server(Door(world.fleet), server)
    address = f"127.0.0.1:{free_port()}"
    server.add_insecure_port(address)
    await server.start()
    yield address
    await server.stop(1.0)


class Host:
    """A node as the agent makes it: joined, on the mesh, renewing."""

    def __init__(self, state, credential):
        self.state = state
        self.credential = credential
        self.file = CredentialFile(state, credential)

    async def connect(self, **options):
        self.bus = await Bus.connect(
            self.credential.nats_url,
            creds=self.state / "node.creds",
            name="agent",
            prefix=self.credential.subject_prefix,
            node_id=self.credential.node_id,
            **options,
        )
        self.scheduler = SchedulerCalls(self.bus, 5.0)
        self.renewal = Renewal(
            self.file,
            self.scheduler.renew,
            lambda: self.bus.connected,
            SystemClock(),
            random.Random(1),
        )
        return self

    def token(self):
        return (self.state / "node.creds").read_text().splitlines()[1]

    def public_key(self):
        return public_key_of(self.file._read()[1])


async def joined(world, door, state, node_id="n1"):
    request = fleet_pb2.CreateNodeTokenRequest(node_id=node_id)
    token = (await world.fleet.CreateNodeToken(request)).token
    return Host(state, await join(state, door, token))


async def test_a_node_outlives_its_first_credential(world, door, state_folder):
    await world.start(node_credential_ttl_ms=3_000)
    node = await (await joined(world, door, state_folder)).connect()
    first = node.token()
    renewing = asyncio.create_task(node.renewal.run())
    lost, back = asyncio.Event(), asyncio.Event()
    node.bus.on_disconnected(lost.set)
    node.bus.on_connected(back.set)
    async with asyncio.timeout(SOON_S):
        await lost.wait()  # the first one's life is over
        await back.wait()
    assert claims_of(node.token())["exp"] > claims_of(first)["exp"]
    assert claims_of(node.token())["sub"] == claims_of(first)["sub"] == node.public_key()
    assert (await node.scheduler.renew())[1] == 3_000
    renewing.cancel()
    await node.bus.close()


async def test_a_node_that_was_away_too_long_comes_back_at_the_door(world, door, state_folder):
    await world.start(node_credential_ttl_ms=1_000)
    node = await joined(world, door, state_folder)
    first = claims_of(node.token())
    margin = datetime.timedelta(seconds=1)  # the broker counts whole seconds
    await eventually(lambda: node.file.left(SystemClock().wall() - margin) == 0.0)
    with pytest.raises((Unauthenticated, Unreachable)):
        await node.connect(timeout_s=0.5)
    await node.file.ask_the_door()
    assert claims_of(node.token())["exp"] > first["exp"]
    await node.connect()
    await node.bus.close()


async def test_a_revoked_node_is_out_everywhere(world, door, nats, state_folder):
    await world.start()
    node = await (await joined(world, door, state_folder)).connect()
    lost = asyncio.Event()
    node.bus.on_disconnected(lost.set)
    revoke = fleet_pb2.RevokeNodeRequest(name="nodes/n1")
    await world.fleet.RevokeNode(revoke)
    for attempt in (node.scheduler.renew(), node.file.ask_the_door()):
        with pytest.raises(Forbidden) as caught:
            await attempt
        assert caught.value.reason == "NODE_REVOKED"
    stub = sync_pb2_grpc.SyncServiceStub(node.bus.channel())
    with pytest.raises(grpc.aio.AioRpcError):
        await stub.SyncNode(sync_pb2.SyncNodeRequest(spool_id="s", boot_id="b"))
    assert nats.refresh()  # as the supervisor does
    async with asyncio.timeout(SOON_S):
        await lost.wait()
    await node.bus.close()
    await world.fleet.RevokeNode(revoke)  # again, in case the first answer was lost
    (state_folder / "again").mkdir()
    again = await (await joined(world, door, state_folder / "again")).connect()
    assert (await again.scheduler.renew())[0]
    await again.bus.close()


async def test_only_nodes_renew_and_only_their_own(world, door, state_folder):
    await world.start()
    stub = sync_pb2_grpc.SyncServiceStub((await world.bus("test")).channel())
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.RenewCredential(sync_pb2.RenewCredentialRequest())
    assert fault_from_error(caught.value).reason == "NOT_A_NODE"
    node = await (await joined(world, door, state_folder)).connect()
    token, _ = await node.scheduler.renew()
    assert claims_of(token)["sub"] == node.public_key()
    assert claims_of(token)["name"] == "node:n1"
    await node.bus.close()


class Clock:
    def wall(self):
        return datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


class Paper:
    """A credential file in memory."""

    def __init__(self, left=1.0):
        self.share = left
        self.kept = []
        self.doors = 0
        self.fails = False

    def left(self, now):
        return self.share

    def renew(self, token):
        self.kept.append(token)

    async def ask_the_door(self):
        self.doors += 1
        if self.fails:
            raise Unreachable("away", reason="GATEWAY_UNREACHABLE")


def renewal_of(paper, *, connected=True, valid_ms=86_400_000):
    async def ask():
        return "fresh", valid_ms

    return Renewal(paper, ask, lambda: connected, Clock(), random.Random(7))


async def test_renewed_before_two_thirds_of_its_life():
    paper = Paper()
    renewal = renewal_of(paper)
    waits = [await renewal.turn() for _ in range(50)]
    assert all(86_400 * 0.5 <= wait <= 86_400 * 2 / 3 for wait in waits)
    assert len(set(waits)) > 40  # not all nodes at once
    assert paper.kept == ["fresh"] * 50


async def test_the_door_is_asked_only_when_little_is_left():
    paper = Paper(left=0.9)
    renewal = renewal_of(paper, connected=False)
    waits = [await renewal.turn() for _ in range(20)]
    assert paper.doors == 0
    assert max(waits) <= 60
    paper.share = 0.0
    await renewal.turn()
    assert paper.doors == 1
    paper.fails = True
    assert await renewal.turn() <= 60


async def test_a_refusal_is_no_reason_to_end():
    async def refuse():
        raise Forbidden("no", reason="NODE_REVOKED")

    renewal = Renewal(Paper(), refuse, lambda: True, Clock(), random.Random(7))
    assert 0 < await renewal.turn() <= 60
