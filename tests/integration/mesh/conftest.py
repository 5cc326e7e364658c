"""One servicer behind each of the three transports."""

from dataclasses import dataclass

import grpc
import pytest
from gridlease_mesh.bus import Bus
from gridlease_mesh.loopback import LoopbackBroker

from tests.integration.mesh.echo import echo_pb2_grpc
from tests.integration.mesh.servicer import Echo

TRANSPORTS = ("grpc", "nats", "loopback")


@dataclass
class Pair:
    """A running server and ways to call it."""

    name: str
    echo: Echo
    stub: object
    make_channel: object
    server: object


async def _over_grpc(echo, interceptors):
    server = grpc.aio.server(interceptors=interceptors)
    echo_pb2_grpc.add_EchoServiceServicer_to_server(echo, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()

    def make(interceptors=()):
        return grpc.aio.insecure_channel(f"127.0.0.1:{port}", interceptors=list(interceptors))

    return server, make, ()


async def _over_bus(echo, interceptors, server_bus, client_bus):
    server = server_bus.server(interceptors=interceptors)
    echo_pb2_grpc.add_EchoServiceServicer_to_server(echo, server)
    await server.start()

    def make(interceptors=()):
        return client_bus.channel(interceptors=interceptors)

    return server, make, (client_bus, server_bus)


@pytest.fixture
async def serve(request):
    """Call it with a transport's name: a Pair, closed after the test."""
    ends = []

    async def start(transport, interceptors=()):
        echo = Echo()
        if transport == "grpc":
            server, make, buses = await _over_grpc(echo, interceptors)
        else:
            if transport == "loopback":
                broker = LoopbackBroker()
                pair = [Bus(broker.wire(), name=name) for name in ("echo", "caller")]
            else:
                nats = request.getfixturevalue("nats")
                pair = [
                    await Bus.connect(nats.url, creds=nats.service_creds(name), name=name)
                    for name in ("echo", "caller")
                ]
            server, make, buses = await _over_bus(echo, interceptors, *pair)
        channel = make()
        ends.append((server, channel, buses))
        stub = echo_pb2_grpc.EchoServiceStub(channel)
        return Pair(transport, echo, stub, make, server)

    yield start
    for server, channel, buses in ends:
        await channel.close()
        await server.stop(None)
        for bus in buses:
            await bus.close()


@pytest.fixture(params=TRANSPORTS)
async def pair(request, serve):
    """The servicer on each transport in turn."""
    return await serve(request.param)
