"""On a broker that loses, doubles or goes silent, a call ends; it never lies and never hangs."""

import asyncio

import grpc
import pytest
from gridlease_mesh.bus import Bus
from gridlease_mesh.loopback import LoopbackBroker

SOON_S = 5.0
METHOD = "/test.v1.Counter/Count"


class Handlers:
    """A hand-written service without messages: bytes in, bytes out."""

    def __init__(self):
        self.cancelled = asyncio.Event()

    async def count(self, request, context):
        try:
            for index in range(int(request)):
                yield str(index).encode()
            await asyncio.Event().wait()
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled.set()
            raise

    async def echo(self, request, context):
        return request

    def add_to(self, server):
        handlers = {
            "Count": grpc.unary_stream_rpc_method_handler(self.count),
            "Echo": grpc.unary_unary_rpc_method_handler(self.echo),
        }
        server.add_registered_method_handlers("test.v1.Counter", handlers)


class Setup:
    def __init__(self, keepalive_s=0.05):
        self.broker = LoopbackBroker()
        self.server_bus = Bus(self.broker.wire(), name="counter", keepalive_s=keepalive_s)
        self.client_bus = Bus(self.broker.wire(), name="caller", keepalive_s=keepalive_s)
        self.handlers = Handlers()
        self.server = self.server_bus.server()
        self.handlers.add_to(self.server)
        self.channel = self.client_bus.channel(default_timeout_s=SOON_S)

    def count(self, n):
        return self.channel.unary_stream(METHOD)(str(n).encode())

    def echo(self, request, **options):
        return self.channel.unary_unary("/test.v1.Counter/Echo")(request, **options)


@pytest.fixture
async def setup():
    made = Setup()
    await made.server.start()
    yield made
    await made.client_bus.close()
    await made.server.stop(None)
    await made.server_bus.close()


def inboxes(delivery):
    return delivery.subject.startswith("_INBOX.svc.caller")


async def ending(call):
    """How it ends, whatever comes before."""

    async def to_the_end():
        while await call.read() is not grpc.aio.EOF:
            pass

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await to_the_end()
    return caught.value.code()


@pytest.mark.parametrize("victim", [1, 2, 5, 10])
async def test_a_lost_frame_ends_the_stream(setup, victim):
    seen = 0

    def tap(delivery):
        nonlocal seen
        seen += inboxes(delivery)
        return () if seen == victim and inboxes(delivery) else (delivery,)

    setup.broker.tap = tap
    assert await ending(setup.count(20)) is grpc.StatusCode.DATA_LOSS
    await asyncio.wait_for(setup.handlers.cancelled.wait(), SOON_S)


async def test_a_loss_at_the_tail_shows_with_the_next_keepalive(setup):
    setup.broker.tap = lambda d: () if inboxes(d) and d.payload.endswith(b"19") else (d,)
    assert await ending(setup.count(20)) is grpc.StatusCode.DATA_LOSS


async def test_a_doubled_frame_ends_the_stream(setup):
    setup.broker.tap = lambda d: (d, d) if inboxes(d) else (d,)
    assert await ending(setup.count(20)) is grpc.StatusCode.DATA_LOSS


async def test_a_lost_credit_ends_the_stream(setup):
    setup.broker.tap = lambda d: () if "._call." in d.subject and d.payload[0] == 6 else (d,)
    assert await ending(setup.count(1000)) is grpc.StatusCode.DATA_LOSS
    await asyncio.wait_for(setup.handlers.cancelled.wait(), SOON_S)


async def test_a_silent_server_is_noticed_before_the_deadline(setup):
    call = setup.count(1)
    assert await call.read() == b"0"
    setup.broker.tap = lambda d: () if inboxes(d) else (d,)
    assert await ending(call) is grpc.StatusCode.UNAVAILABLE


async def test_a_silent_client_is_noticed(setup):
    call = setup.count(1)
    assert await call.read() == b"0"
    setup.broker.tap = lambda d: () if "._call." in d.subject else (d,)
    await asyncio.wait_for(setup.handlers.cancelled.wait(), SOON_S)
    assert await ending(call) is grpc.StatusCode.UNAVAILABLE


async def test_an_idle_stream_lives(setup):
    call = setup.count(1)
    assert await call.read() == b"0"
    waiting = asyncio.create_task(call.read())
    done, _ = await asyncio.wait([waiting], timeout=0.5)  # ten keepalives
    assert not done
    assert call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_a_lost_answer_is_the_deadline(setup):
    setup.broker.tap = lambda d: () if inboxes(d) else (d,)
    assert await setup.echo(b"x", timeout=0.1).code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_garbage_ends_the_call(setup):
    call = setup.count(1)
    assert await call.read() == b"0"
    setup.server_bus.wire.publish(call.reply, b"\xff" * 3)
    assert await ending(call) is grpc.StatusCode.INTERNAL


async def test_a_cut_connection_ends_calls_at_once_and_heals(setup):
    call = setup.count(1)
    assert await call.read() == b"0"
    setup.client_bus.wire.disconnect()
    assert await ending(call) is grpc.StatusCode.UNAVAILABLE
    assert await setup.echo(b"x").code() is grpc.StatusCode.UNAVAILABLE
    assert setup.channel.get_state() is grpc.ChannelConnectivity.TRANSIENT_FAILURE
    ready = asyncio.create_task(setup.channel.channel_ready())
    setup.client_bus.wire.reconnect()
    await asyncio.wait_for(ready, SOON_S)
    assert await setup.echo(b"x") == b"x"


async def test_a_server_that_lost_the_broker_stops_its_streams(setup):
    call = setup.count(1)
    assert await call.read() == b"0"
    setup.server_bus.wire.disconnect()
    await asyncio.wait_for(setup.handlers.cancelled.wait(), SOON_S)
    assert await ending(call) is grpc.StatusCode.UNAVAILABLE


async def test_nobody_there_is_unavailable(setup):
    await setup.server.stop(None)
    assert await setup.echo(b"x").code() is grpc.StatusCode.UNAVAILABLE


async def test_closing_a_channel_cancels_its_calls(setup):
    call = setup.count(1)
    assert await call.read() == b"0"
    await setup.channel.close()
    assert await call.code() is grpc.StatusCode.CANCELLED
    with pytest.raises(grpc.aio.UsageError):
        setup.echo(b"x")


async def test_metadata_reserved_to_the_mesh_is_refused(setup):
    with pytest.raises(ValueError, match="reserved"):
        setup.echo(b"x", metadata=(("gl-framed", "1"),))
