"""A factory behind a leaf node: two real brokers from our templates, and a link that is cut."""

import asyncio
import time

import grpc
import pytest
from gridlease_mesh import credentials, topology
from gridlease_mesh.bus import Bus
from gridlease_testkit.ports import free_port
from gridlease_testkit.waiting import eventually

from tests.integration.edge.brokers import HERE, Broker, Link, node_creds
from tests.integration.mesh.echo import echo_pb2, echo_pb2_grpc
from tests.integration.mesh.servicer import Echo

SERVICE = "gridlease.meshtest.v1.EchoService"
ENDS = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}


class Factory:
    """The centre, the factory's broker, and the link between them."""

    def __init__(self, folder):
        self.folder = folder
        self.authority = credentials.Authority(folder / "keys")
        leaf_port, route_port = free_port(), free_port()
        self.hub = Broker(
            folder / "hub",
            self.authority,
            "cluster.conf",
            NAME="hub",
            ROUTE=f"{HERE}:{route_port}",
            ROUTES=topology.listed([f"nats://{HERE}:{route_port}"]),
            ROUTE_PASSWORD="test",
            LEAF=f"{HERE}:{leaf_port}",
        )
        # One server alone has nobody to elect with.
        text = self.hub.config.read_text()
        start, end = text.index("cluster {"), text.index("leafnodes {")
        self.hub.config.write_text(text[:start] + text[end:])
        self.link = Link(leaf_port)

    async def open(self):
        self.hub.start()
        await self.link.open()
        seed, public = credentials.new_user_key()
        allow = topology.leaf_permissions(["n-1"], "gl")
        token = self.authority.signer.user(public, "leaf:factory-1", allow, None)
        creds = self.folder / "leaf.creds"
        credentials.write_creds(creds, token, seed)
        self.leaf = Broker(
            self.folder / "leaf",
            self.authority,
            "leaf.conf",
            NAME="factory-1",
            HUB=topology.listed([f"nats-leaf://{HERE}:{self.link.port}"]),
            ACCOUNT=self.authority.account_public_key,
            CREDENTIALS=str(creds),
        )
        self.leaf.start()

    async def service(self, name):
        creds = self.authority.mint_service_user(name)
        return await Bus.connect(self.hub.url, creds=creds, name=name)

    async def node(self, node_id):
        creds = node_creds(self.authority, self.folder, node_id)
        return await Bus.connect(self.leaf.url, creds=creds, name="agent", node_id=node_id)

    async def close(self):
        await self.link.cut()
        for broker in (self.leaf, self.hub):
            broker.stop()


@pytest.fixture
async def factory(state_folder):
    made = Factory(state_folder)
    await made.open()
    yield made
    await made.close()


async def serve(bus, **options):
    server = bus.server(**options)
    echo_pb2_grpc.add_EchoServiceServicer_to_server(Echo(), server)
    await server.start()
    return server


def stub(bus, target="any"):
    return echo_pb2_grpc.EchoServiceStub(bus.channel(target, default_timeout_s=2.0))


async def ends(call):
    """The status that a call ends with, whatever it is."""
    return await call.code()


async def answered(caller):
    call = caller.Say(echo_pb2.SayRequest(text="x"))
    return await ends(call) is grpc.StatusCode.OK


async def test_calls_and_reports_cross_the_link_and_survive_a_cut(factory):
    centre, node = await factory.service("scheduler"), await factory.node("n-1")
    await serve(centre, up=[SERVICE])
    await serve(node)
    up, down = stub(node), stub(centre, "n-1")
    await eventually(lambda: answered(up))
    await eventually(lambda: answered(down))
    answer = await up.Say(echo_pb2.SayRequest(text="from the factory"))
    assert answer.node == "n-1"
    size = 2 << 20
    large = await up.Say(echo_pb2.SayRequest(ballast=b"a" * size, answer_bytes=size))
    assert len(large.ballast) == size
    assert [a.index async for a in up.Repeat(echo_pb2.RepeatRequest(count=200))] == list(range(200))

    heard = []
    centre.wire.subscribe("gl.tel.*.report", heard.append)
    await centre.flush()

    async def reported():
        node.wire.publish("gl.tel.n-1.report", b"sample")
        await node.flush()
        return heard

    await eventually(reported)

    await factory.link.cut()
    began = time.monotonic()
    statuses = {await ends(up.Say(echo_pb2.SayRequest(text="x"))) for _ in range(3)}
    statuses |= {await ends(down.Say(echo_pb2.SayRequest(text="x"))) for _ in range(3)}
    assert statuses <= ENDS
    assert time.monotonic() - began < 6 * 2.5  # no call outlives its deadline
    assert node.connected  # the factory's own broker is there
    before = len(heard)

    await factory.link.open()
    await eventually(lambda: answered(up), timeout_s=15.0)
    await eventually(lambda: answered(down), timeout_s=15.0)
    await eventually(lambda: reported_again(node, heard, before))
    await asyncio.gather(node.close(), centre.close())


async def reported_again(node, heard, before):
    node.wire.publish("gl.tel.n-1.report", b"sample")
    await node.flush()
    return len(heard) > before


async def test_a_factorys_broker_speaks_for_its_own_nodes_only(factory):
    """A node of another site, with good credentials, gets nowhere over this link."""
    centre = await factory.service("scheduler")
    heard = []
    centre.wire.subscribe("gl.>", lambda delivery: heard.append(delivery.subject))
    await centre.flush()
    own, stranger = await factory.node("n-1"), await factory.node("n-2")

    async def crossed():
        stranger.wire.publish("gl.up.n-2.x", b"")
        await stranger.flush()
        own.wire.publish("gl.up.n-1.x", b"")
        await own.flush()
        return "gl.up.n-1.x" in heard

    await eventually(crossed)
    assert "gl.up.n-2.x" not in heard
    await asyncio.gather(own.close(), stranger.close(), centre.close())
