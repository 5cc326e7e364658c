"""Channels: states, waiting, closing."""

import asyncio

import grpc
import pytest

from tests.integration.mesh.suite.waits import (
    Seen,
    all_of,
    count,
    echo,
    failure,
    join,
    soon,
    still,
)

READY = grpc.ChannelConnectivity.READY
SHUTDOWN = grpc.ChannelConnectivity.SHUTDOWN
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
METHOD = "/gridlease.suite.v1.Suite/unary_unary"


async def test_ready(world):
    await world.serve(unary_unary=echo)
    channel = await world.channel()
    await soon(channel.channel_ready())
    assert channel.get_state() is READY


async def test_shut_down(world):
    ways = await world.start(unary_unary=echo)
    await ways.uu(b"x")
    await ways.channel.close()
    assert ways.channel.get_state() is SHUTDOWN
    await ways.channel.close()


async def test_a_state_change_wakes(world):
    ways = await world.start(unary_unary=echo)
    await soon(ways.channel.channel_ready())
    waiting = asyncio.create_task(ways.channel.wait_for_state_change(READY))
    await asyncio.sleep(0)
    await ways.channel.close()
    await soon(asyncio.wait([waiting]))
    assert waiting.done()


async def test_nobody_serves(world):
    channel = await world.channel()
    assert (await failure(channel.unary_unary(METHOD)(b"", timeout=5))).code() is UNAVAILABLE


async def test_nobody_serves_a_stream(world):
    channel = await world.channel()
    call = channel.unary_stream(METHOD)(b"", timeout=5)
    assert (await failure(all_of(call))).code() is UNAVAILABLE


async def test_nobody_serves_and_questions_wait(world):
    channel = await world.channel()
    call = channel.stream_unary(METHOD)(timeout=5)
    with pytest.raises((grpc.aio.AioRpcError, asyncio.InvalidStateError)):
        await soon(call.write(b"a"))
    assert await call.code() is UNAVAILABLE


async def test_waiting_for_a_server(world):
    channel = await world.channel()
    call = channel.unary_unary(METHOD)(b"late", timeout=5, wait_for_ready=True)
    await still(call.code(), 0.1)
    await world.serve(unary_unary=echo)
    assert await soon(call) == b"late"


async def test_waiting_for_a_server_with_a_stream(world):
    channel = await world.channel()
    method = "/gridlease.suite.v1.Suite/unary_stream"
    call = channel.unary_stream(method)(b"2", timeout=5, wait_for_ready=True)
    await still(call.code(), 0.1)
    await world.serve(unary_stream=count)
    assert await soon(all_of(call)) == [b"0", b"1"]


async def test_waiting_for_a_server_with_questions(world):
    channel = await world.channel()
    method = "/gridlease.suite.v1.Suite/stream_unary"
    call = channel.stream_unary(method)([b"a", b"b"], timeout=5, wait_for_ready=True)
    await still(call.code(), 0.1)
    await world.serve(stream_unary=join)
    assert await soon(call) == b"a,b"


async def test_waiting_has_a_deadline(world):
    channel = await world.channel()
    call = channel.unary_unary(METHOD)(b"", timeout=0.3, wait_for_ready=True)
    assert (await failure(call)).code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_waiting_for_the_connection(world):
    ways = await world.start(unary_unary=echo, unary_stream=count)
    call = ways.uu(b"x")
    await soon(call.wait_for_connection())
    assert await call == b"x"
    stream = ways.us(b"1")
    await soon(stream.wait_for_connection())
    assert await all_of(stream) == [b"0"]


async def test_waiting_for_a_connection_that_fails(world):
    channel = await world.channel()
    call = channel.unary_unary(METHOD)(b"", timeout=5)
    assert (await failure(call.wait_for_connection())).code() is UNAVAILABLE


async def test_closing_cancels(world):
    seen = Seen()
    ways = await world.start(unary_unary=seen.hang_unary)
    call = ways.uu(b"x")
    await soon(seen.started.wait())
    await ways.channel.close()
    assert await call.code() is grpc.StatusCode.CANCELLED
    await soon(seen.cancelled.wait())


async def test_closing_cancels_streams(world):
    seen = Seen()
    ways = await world.start(stream_stream=seen.hang_chat)
    call = ways.ss()
    assert await soon(call.read()) == b"first"
    await ways.channel.close()
    assert await call.code() is grpc.StatusCode.CANCELLED
    await soon(seen.cancelled.wait())


async def test_closing_with_grace_waits(world):
    seen = Seen()

    async def serve(request, context):
        seen.started.set()
        await seen.release.wait()
        return request

    ways = await world.start(unary_unary=serve)
    call = ways.uu(b"kept")
    await soon(seen.started.wait())
    closing = asyncio.create_task(ways.channel.close(5))
    await still(closing, 0.05)
    seen.release.set()
    assert await call == b"kept"
    await soon(closing)


async def test_closing_after_grace_cancels(world):
    seen = Seen()
    ways = await world.start(unary_unary=seen.hang_unary)
    call = ways.uu(b"x")
    await soon(seen.started.wait())
    await soon(ways.channel.close(0.1))
    assert await call.code() is grpc.StatusCode.CANCELLED


async def test_calling_on_a_closed_channel_is_misuse(world):
    ways = await world.start(unary_unary=echo)
    await ways.channel.close()

    async def call():
        await ways.uu(b"x")

    with pytest.raises(grpc.aio.UsageError):
        await call()


async def test_as_a_context(world):
    await world.serve(unary_unary=echo)
    async with await world.channel() as channel:
        assert await channel.unary_unary(METHOD)(b"x", timeout=5) == b"x"
    assert channel.get_state() is SHUTDOWN


async def test_two_channels(world):
    await world.serve(unary_unary=echo)
    for channel in (await world.channel(), await world.channel()):
        assert await channel.unary_unary(METHOD)(b"x", timeout=5) == b"x"
