"""One server and one client behind each of the three transports, with handlers made by a test."""

import asyncio

import grpc
import pytest
from gridlease_mesh.bus import Bus
from gridlease_mesh.loopback import LoopbackBroker
from gridlease_testkit.ports import free_port

SERVICE = "gridlease.suite.v1.Suite"
TRANSPORTS = ("grpc", "nats", "loopback")
SOON_S = 5.0


def method(kind):
    return f"/{SERVICE}/{kind}"


def handlers_of(behaviours):
    """Registered handlers by method name: ``unary_unary=f`` and so on; bytes in, bytes out."""
    return {
        kind: getattr(grpc, f"{kind}_rpc_method_handler")(behaviour)
        for kind, behaviour in behaviours.items()
    }


class World:
    """A transport, and what this test runs over it."""

    def __init__(self, name, nats=None):
        self.name = name
        self._nats = nats
        self._broker = LoopbackBroker()
        self._port = free_port() if name == "grpc" else 0
        self._buses = []
        self._channels = []
        self._servers = []
        self.server = None

    @property
    def over_grpc(self):
        return self.name == "grpc"

    async def _bus(self, name):
        if self.name == "nats":
            bus = await Bus.connect(self._nats.url, creds=self._nats.service_creds(name), name=name)
        else:
            bus = Bus(self._broker.wire(), name=name)
        self._buses.append(bus)
        return bus

    async def serve(self, *, interceptors=(), generic=False, **behaviours):
        """Start a server; options that are not arities go to it."""
        options = {k: behaviours.pop(k) for k in list(behaviours) if k in OPTIONS}
        made = handlers_of(behaviours)
        if self.over_grpc:
            if "max_concurrent" in options:
                options["maximum_concurrent_rpcs"] = options.pop("max_concurrent")
            server = grpc.aio.server(interceptors=list(interceptors), **options)
            server.add_insecure_port(f"127.0.0.1:{self._port}")
        else:
            bus = await self._bus("suite")
            server = bus.server(interceptors=interceptors, **options)
        handler = grpc.method_handlers_generic_handler(SERVICE, made)
        server.add_generic_rpc_handlers((handler,))
        if not generic:
            server.add_registered_method_handlers(SERVICE, made)
        await server.start()
        self._servers.append(server)
        self.server = server
        return server

    async def channel(self, interceptors=(), **options):
        if self.over_grpc:
            arguments = [
                ("grpc.initial_reconnect_backoff_ms", 50),
                ("grpc.max_reconnect_backoff_ms", 100),
            ]
            channel = grpc.aio.insecure_channel(
                f"127.0.0.1:{self._port}",
                interceptors=list(interceptors),
                options=arguments,
                **options,
            )
        else:
            caller = next((bus for bus in self._buses if bus.name == "caller"), None)
            caller = caller or await self._bus("caller")
            channel = caller.channel(interceptors=interceptors, **options)
        self._channels.append(channel)
        return channel

    async def start(self, *, client_interceptors=(), **serving):
        """Serve, and the four ways to call it: ``uu``, ``us``, ``su``, ``ss``."""
        await self.serve(**serving)
        return Ways(await self.channel(client_interceptors))

    async def close(self):
        for channel in self._channels:
            await channel.close()
        for server in self._servers:
            await server.stop(None)
        for bus in self._buses:
            await bus.close()


OPTIONS = ("max_concurrent", "compression", "migration_thread_pool")


class Ways:
    """The multi-callables of one channel; every call has a timeout unless the test gives one."""

    def __init__(self, channel):
        self.channel = channel
        for short, kind in KINDS.items():
            setattr(self, short, _timed(getattr(channel, kind)(method(kind))))


KINDS = {"uu": "unary_unary", "us": "unary_stream", "su": "stream_unary", "ss": "stream_stream"}


def _timed(call):
    def made(*args, timeout=SOON_S, **options):
        return call(*args, timeout=timeout, **options)

    return made


@pytest.fixture(params=TRANSPORTS)
async def world(request):
    """Each transport in turn."""
    nats = request.getfixturevalue("nats") if request.param == "nats" else None
    made = World(request.param, nats)
    yield made
    await asyncio.wait_for(made.close(), 20)
