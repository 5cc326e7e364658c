"""Streams both ways."""

import asyncio

import grpc
import pytest

from tests.integration.mesh.suite.waits import (
    Seen,
    all_of,
    chat,
    failure,
    given,
    soon,
    turn,
)


async def test_ping_pong(world):
    ways = await world.start(stream_stream=chat)
    call = ways.ss()
    for word in (b"a", b"b", b"c"):
        await call.write(word)
        assert await call.read() == b"re:" + word
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK


async def test_iterators_on_both_sides(world):
    ways = await world.start(stream_stream=chat)
    assert await all_of(ways.ss(given(b"a", b"b"))) == [b"re:a", b"re:b"]


async def test_a_plain_iterable(world):
    ways = await world.start(stream_stream=chat)
    assert await all_of(ways.ss([b"a", b"b"])) == [b"re:a", b"re:b"]


async def test_write_with_iteration(world):
    ways = await world.start(stream_stream=chat)
    call = ways.ss()
    await call.write(b"a")
    await call.write(b"b")
    await call.done_writing()
    assert await all_of(call) == [b"re:a", b"re:b"]


async def test_an_iterator_with_read(world):
    ways = await world.start(stream_stream=chat)
    call = ways.ss(given(b"a"))
    assert await call.read() == b"re:a"
    assert await call.read() is grpc.aio.EOF


async def test_context_read_and_write(world):
    async def serve(requests, context):
        while (message := await context.read()) is not grpc.aio.EOF:
            await context.write(message * 2)

    ways = await world.start(stream_stream=serve)
    assert await all_of(ways.ss(given(b"a", b"b"))) == [b"aa", b"bb"]


async def test_nothing_either_way(world):
    ways = await world.start(stream_stream=chat)
    assert await all_of(ways.ss(given())) == []


async def test_answers_after_the_last_question(world):
    async def later(requests, context):
        got = [request async for request in requests]
        for each in reversed(got):
            yield each

    ways = await world.start(stream_stream=later)
    assert await all_of(ways.ss(given(b"a", b"b", b"c"))) == [b"c", b"b", b"a"]


async def test_answers_before_any_question(world):
    async def eager(requests, context):
        yield b"welcome"
        async for request in requests:
            yield request

    ways = await world.start(stream_stream=eager)
    call = ways.ss()
    assert await soon(call.read()) == b"welcome"
    await call.write(b"a")
    assert await call.read() == b"a"
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF


async def test_the_servicer_ends_first(world):
    async def one(requests, context):
        async for request in requests:
            yield request
            return

    async def forever():
        while True:
            yield b"more"
            await turn(0.001)

    ways = await world.start(stream_stream=one)
    call = ways.ss(forever())
    assert await soon(all_of(call)) == [b"more"]
    assert await call.code() is grpc.StatusCode.OK


async def test_writing_after_the_servicer_ended(world):
    async def none(requests, context):
        return
        yield

    ways = await world.start(stream_stream=none)
    call = ways.ss()
    assert await soon(call.read()) is grpc.aio.EOF
    with pytest.raises(asyncio.InvalidStateError):
        await call.write(b"a")


async def test_abort_in_the_middle(world):
    async def fussy(requests, context):
        async for request in requests:
            if request == b"bad":
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "bad word")
            yield request

    ways = await world.start(stream_stream=fussy)
    call = ways.ss(given(b"a", b"bad", b"c"))
    assert await call.read() == b"a"
    error = await failure(call.read())
    assert (error.code(), error.details()) == (grpc.StatusCode.INVALID_ARGUMENT, "bad word")


async def test_an_escaped_exception(world):
    async def fail(requests, context):
        async for request in requests:
            yield request
            raise RuntimeError("surprise")

    ways = await world.start(stream_stream=fail)
    call = ways.ss(given(b"a", b"b"))
    assert await call.read() == b"a"
    assert (await failure(call.read())).code() is grpc.StatusCode.UNKNOWN


async def test_cancel(world):
    seen = Seen()
    ways = await world.start(stream_stream=seen.hang_chat)
    call = ways.ss()
    assert await soon(call.read()) == b"first"
    assert call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call.read()
    await soon(seen.cancelled.wait())


async def test_cancelling_the_reading_task(world):
    seen = Seen()
    ways = await world.start(stream_stream=seen.hang_chat)
    call = ways.ss()
    assert await soon(call.read()) == b"first"
    task = asyncio.create_task(call.read())
    await soon(seen.started.wait())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await soon(seen.cancelled.wait())
    assert await call.code() is grpc.StatusCode.CANCELLED


async def test_an_iterator_that_fails_cancels(world):
    seen = Seen()

    async def broken():
        yield b"a"
        await seen.started.wait()
        raise RuntimeError("the caller's own")

    ways = await world.start(stream_stream=seen.hang_chat)
    call = ways.ss(broken())
    assert await soon(call.code()) is grpc.StatusCode.CANCELLED
    await soon(seen.cancelled.wait())


async def test_a_deadline(world):
    seen = Seen()
    ways = await world.start(stream_stream=seen.hang_chat)
    error = await failure(all_of(ways.ss(given(b"a"), timeout=0.2)))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await soon(seen.cancelled.wait())


async def test_a_thousand_each_way(world):
    ways = await world.start(stream_stream=chat)
    got = await all_of(ways.ss(str(n).encode() for n in range(1000)))
    assert got == [f"re:{n}".encode() for n in range(1000)]


async def test_big_messages_each_way(world):
    async def mirror(requests, context):
        async for request in requests:
            yield request

    ways = await world.start(stream_stream=mirror)
    got = await all_of(ways.ss(given(*[b"a" * 1_500_000] * 3)))
    assert [len(each) for each in got] == [1_500_000] * 3


async def test_twenty_at_once(world):
    ways = await world.start(stream_stream=chat)

    async def talk(number):
        call = ways.ss()
        for index in range(5):
            word = f"{number}.{index}".encode()
            await call.write(word)
            assert await call.read() == b"re:" + word
        await call.done_writing()
        return await call.code()

    assert set(await asyncio.gather(*map(talk, range(20)))) == {grpc.StatusCode.OK}


async def test_a_plain_generator_serves(world):
    def serve(requests, context):
        for request in requests:
            yield request * 2

    ways = await world.start(stream_stream=serve)
    assert await all_of(ways.ss(given(b"a", b"b"))) == [b"aa", b"bb"]


async def test_read_and_iteration_do_not_mix(world):
    seen = Seen()
    ways = await world.start(stream_stream=seen.hang_chat)
    call = ways.ss()
    assert await soon(call.read()) == b"first"
    with pytest.raises(grpc.aio.UsageError):
        aiter(call)
    call.cancel()


async def test_write_and_an_iterator_do_not_mix(world):
    ways = await world.start(stream_stream=chat)
    call = ways.ss(given(b"a"))
    with pytest.raises(grpc.aio.UsageError):
        await call.write(b"b")
    assert await all_of(call) == [b"re:a"]
