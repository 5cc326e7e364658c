"""Streams of questions."""

import asyncio

import grpc
import pytest

from tests.integration.mesh.suite.waits import (
    Seen,
    failure,
    given,
    join,
    soon,
    turn,
)


async def test_from_an_async_iterator(world):
    ways = await world.start(stream_unary=join)
    assert await ways.su(given(b"a", b"b", b"c")) == b"a,b,c"


async def test_from_a_plain_iterable(world):
    ways = await world.start(stream_unary=join)
    assert await ways.su([b"a", b"b"]) == b"a,b"


async def test_from_a_plain_generator(world):
    ways = await world.start(stream_unary=join)
    assert await ways.su(str(n).encode() for n in range(3)) == b"0,1,2"


async def test_none_at_all(world):
    ways = await world.start(stream_unary=join)
    assert await ways.su(given()) == b""


async def test_by_write(world):
    ways = await world.start(stream_unary=join)
    call = ways.su()
    for word in (b"a", b"b"):
        await call.write(word)
    await call.done_writing()
    assert await call == b"a,b"
    assert await call.code() is grpc.StatusCode.OK


async def test_done_writing_twice_is_fine(world):
    ways = await world.start(stream_unary=join)
    call = ways.su()
    await call.write(b"a")
    await call.done_writing()
    await call.done_writing()
    assert await call == b"a"


async def test_done_writing_at_once(world):
    ways = await world.start(stream_unary=join)
    call = ways.su()
    await call.done_writing()
    assert await call == b""


async def test_writing_after_done_is_misuse(world):
    seen = Seen()
    ways = await world.start(stream_unary=seen.hang_gather)
    call = ways.su()
    await call.done_writing()
    with pytest.raises(asyncio.InvalidStateError):
        await call.write(b"a")
    call.cancel()


async def test_writing_after_the_end_is_misuse(world):
    async def early(requests, context):
        return b"early"

    ways = await world.start(stream_unary=early)
    call = ways.su()
    assert await call == b"early"
    with pytest.raises(asyncio.InvalidStateError):
        await call.write(b"a")


async def test_write_and_an_iterator_do_not_mix(world):
    ways = await world.start(stream_unary=join)
    call = ways.su(given(b"a"))
    with pytest.raises(grpc.aio.UsageError):
        await call.write(b"b")
    with pytest.raises(grpc.aio.UsageError):
        await call.done_writing()
    assert await call == b"a"


async def test_a_servicer_that_reads(world):
    async def serve(requests, context):
        got = []
        while (message := await context.read()) is not grpc.aio.EOF:
            got.append(message)
        assert await context.read() is grpc.aio.EOF
        return b"+".join(got)

    ways = await world.start(stream_unary=serve)
    assert await ways.su(given(b"a", b"b")) == b"a+b"


async def test_a_plain_function_serves(world):
    def serve(requests, context):
        return b"".join(requests)

    ways = await world.start(stream_unary=serve)
    assert await ways.su(given(b"a", b"b", b"c")) == b"abc"


async def test_a_thousand_in_order(world):
    async def tally(requests, context):
        expected = 0
        async for request in requests:
            assert int(request) == expected
            expected += 1
        return str(expected).encode()

    ways = await world.start(stream_unary=tally)
    assert await ways.su(str(n).encode() for n in range(1000)) == b"1000"


async def test_big_messages(world):
    async def measure(requests, context):
        return str(sum([len(request) async for request in requests])).encode()

    ways = await world.start(stream_unary=measure)
    assert await ways.su(given(*[b"a" * 2_000_000] * 3)) == b"6000000"


async def test_the_servicer_answers_early(world):
    async def first(requests, context):
        async for request in requests:
            return request
        return b""

    async def forever():
        yield b"one"
        await asyncio.Event().wait()

    ways = await world.start(stream_unary=first)
    assert await soon(ways.su(forever())) == b"one"


async def test_the_servicer_aborts_early(world):
    async def refuse(requests, context):
        await context.abort(grpc.StatusCode.PERMISSION_DENIED, "not you")

    async def forever():
        while True:
            yield b"more"
            await turn(0.001)

    ways = await world.start(stream_unary=refuse)
    error = await failure(ways.su(forever()))
    assert (error.code(), error.details()) == (grpc.StatusCode.PERMISSION_DENIED, "not you")


async def test_an_iterator_that_fails_cancels(world):
    seen = Seen()

    async def broken():
        yield b"a"
        raise RuntimeError("the caller's own")

    ways = await world.start(stream_unary=seen.hang_gather)
    call = ways.su(broken())
    with pytest.raises(asyncio.CancelledError):
        await soon(call)
    assert await call.code() is grpc.StatusCode.CANCELLED


async def test_cancel(world):
    seen = Seen()
    ways = await world.start(stream_unary=seen.hang_gather)
    call = ways.su()
    await call.write(b"a")
    await soon(seen.started.wait())
    assert call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await soon(seen.cancelled.wait())


async def test_cancelling_the_waiting_task(world):
    seen = Seen()
    ways = await world.start(stream_unary=seen.hang_gather)
    call = ways.su()

    async def wait():
        await call

    task = asyncio.create_task(wait())
    await soon(seen.started.wait())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await soon(seen.cancelled.wait())


async def test_a_deadline(world):
    seen = Seen()
    ways = await world.start(stream_unary=seen.hang_gather)
    call = ways.su(timeout=0.2)
    assert (await failure(call)).code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await soon(seen.cancelled.wait())


async def test_a_slow_servicer_holds_the_writer_back(world):
    seen = Seen()

    async def slow(requests, context):
        await seen.release.wait()
        return str(len([request async for request in requests])).encode()

    async def many():
        for _ in range(3000):
            seen.got.append(1)
            yield b"a" * 10_000

    ways = await world.start(stream_unary=slow)
    call = ways.su(many())
    await asyncio.wait([asyncio.create_task(call.code())], timeout=0.2)
    assert len(seen.got) < 2000
    seen.release.set()
    assert await call == b"3000"


async def test_a_message_beyond_the_cap(world):
    ways = await world.start(stream_unary=join)
    call = ways.su(given(b"a" * (4 * 1024 * 1024 + 1)))
    assert (await failure(call)).code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_an_escaped_exception(world):
    async def fail(requests, context):
        raise RuntimeError("surprise")

    ways = await world.start(stream_unary=fail)
    assert (await failure(ways.su(given(b"a")))).code() is grpc.StatusCode.UNKNOWN


async def test_compressed(world):
    async def measure(requests, context):
        return b",".join([str(len(request)).encode() async for request in requests])

    ways = await world.start(stream_unary=measure)
    call = ways.su(given(b"a" * 90_000, b"b"), compression=grpc.Compression.Gzip)
    assert await call == b"90000,1"


async def test_waiting_for_the_connection(world):
    ways = await world.start(stream_unary=join)
    call = ways.su()
    await soon(call.wait_for_connection())
    await call.write(b"a")
    await call.done_writing()
    assert await call == b"a"


async def test_done_callbacks(world):
    ways = await world.start(stream_unary=join)
    call = ways.su(given(b"a"))
    done = asyncio.Event()
    call.add_done_callback(lambda _call: done.set())
    await call
    await soon(done.wait())
