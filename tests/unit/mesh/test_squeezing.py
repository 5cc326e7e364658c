"""Compression: where it pays, negotiated, bounded."""

import zlib

import grpc
import pytest
from gridlease_mesh import flow, frames
from gridlease_mesh.bus import Bus
from gridlease_mesh.loopback import LoopbackBroker

GZIP = grpc.Compression.Gzip


@pytest.fixture
async def setup():
    broker, sizes = LoopbackBroker(), []

    def tap(delivery):
        sizes.append((delivery.subject, len(delivery.payload)))
        return (delivery,)

    broker.tap = tap
    server_bus, bus = Bus(broker.wire(), name="s"), Bus(broker.wire(), name="c")

    async def echo(request, context):
        return request

    async def chat(requests, context):
        async for request in requests:
            yield request

    handlers = {
        "Echo": grpc.unary_unary_rpc_method_handler(echo),
        "Chat": grpc.stream_stream_rpc_method_handler(chat),
    }
    server = server_bus.server(compression=GZIP)
    server.add_registered_method_handlers("t.S", handlers)
    await server.start()
    yield bus, sizes
    await bus.close()
    await server.stop(None)


def most(sizes):
    return max(size for _, size in sizes)


async def test_a_message_that_shrinks_is_squeezed_both_ways(setup):
    bus, sizes = setup
    message = b"abc" * 10_000
    call = bus.channel(compression=GZIP).unary_unary("/t.S/Echo")
    assert await call(message) == message
    assert most(sizes) < 1000


async def test_a_small_one_is_not(setup):
    bus, sizes = setup
    assert await bus.channel(compression=GZIP).unary_unary("/t.S/Echo")(b"a" * 500) == b"a" * 500
    assert most(sizes) == 500


async def test_noise_is_not(setup):
    bus, sizes = setup
    noise = zlib.compress(bytes(range(256)) * 64 + b"".join(b"%d" % (n * n) for n in range(9000)))
    assert await bus.channel(compression=GZIP).unary_unary("/t.S/Echo")(noise) == noise
    assert most(sizes) == len(noise)


async def test_a_caller_that_did_not_ask_gets_it_plain(setup):
    bus, sizes = setup
    assert len(await bus.channel().unary_unary("/t.S/Echo")(b"a" * 5000)) == 5000
    assert [size for _, size in sizes if size == 5000] == [5000, 5000]


async def test_frames_are_squeezed(setup):
    bus, sizes = setup
    message = b"abc" * 500_000  # more than the broker takes
    call = bus.channel(compression=GZIP).stream_stream("/t.S/Chat")([message])
    assert [each async for each in call] == [message]
    assert most(sizes) < 20_000


def test_a_bomb_is_refused():
    bomb = zlib.compress(b"\x00" * (flow.MAX_MESSAGE_BYTES + 1))
    with pytest.raises(flow.TooBig):
        flow.unsqueeze(bomb)


@pytest.mark.parametrize("damaged", [b"", b"not zlib", zlib.compress(b"a" * 5000)[:-5]])
def test_damage_is_malformed(damaged):
    with pytest.raises(frames.BadFrame):
        flow.unsqueeze(damaged)


async def test_an_encoding_from_the_future_is_refused(setup):
    bus, _ = setup
    channel = bus.channel()
    reply = channel.new_reply()
    heard = []
    bus.wire.subscribe(reply, heard.append)
    headers = frames.encode_headers([("grpc-timeout", "1S"), (frames.ENCODING, "brotli")])
    bus.wire.publish("gl.any.t.S.Echo", b"x", reply=reply, headers=headers)
    await bus.flush()
    await bus.flush()
    assert frames.decode_status(frames.decode_headers(heard[0].headers).pairs).code == 12
