"""Streams of answers."""

import asyncio

import grpc
import pytest

from tests.integration.mesh.suite.waits import (
    Seen,
    all_of,
    count,
    failure,
    soon,
    turn,
)


async def test_in_order(world):
    ways = await world.start(unary_stream=count)
    assert await all_of(ways.us(b"500")) == [str(n).encode() for n in range(500)]


async def test_none_at_all(world):
    ways = await world.start(unary_stream=count)
    call = ways.us(b"0")
    assert await all_of(call) == []
    assert await call.code() is grpc.StatusCode.OK


async def test_by_read(world):
    ways = await world.start(unary_stream=count)
    call = ways.us(b"2")
    assert [await call.read(), await call.read()] == [b"0", b"1"]
    assert await call.read() is grpc.aio.EOF
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK


async def test_read_and_iteration_do_not_mix(world):
    seen = Seen()
    ways = await world.start(unary_stream=seen.hang_stream)
    call = ways.us(b"2")
    assert await call.read() == b"first"
    with pytest.raises(grpc.aio.UsageError):
        aiter(call)
    call.cancel()


async def test_iteration_and_read_do_not_mix(world):
    seen = Seen()
    ways = await world.start(unary_stream=seen.hang_stream)
    call = ways.us(b"2")
    assert await anext(aiter(call)) == b"first"
    with pytest.raises(grpc.aio.UsageError):
        await call.read()
    call.cancel()


async def test_by_context_write(world):
    async def serve(request, context):
        for word in (b"a", b"b"):
            await context.write(word)

    ways = await world.start(unary_stream=serve)
    assert await all_of(ways.us(b"")) == [b"a", b"b"]


async def test_a_plain_generator_serves(world):
    def serve(request, context):
        for index in range(int(request)):
            yield str(index).encode()

    ways = await world.start(unary_stream=serve)
    assert await all_of(ways.us(b"20")) == [str(n).encode() for n in range(20)]


async def test_abort_after_some(world):
    async def serve(request, context):
        yield b"a"
        yield b"b"
        await context.abort(grpc.StatusCode.ABORTED, "enough")

    ways = await world.start(unary_stream=serve)
    call = ways.us(b"")
    assert [await call.read(), await call.read()] == [b"a", b"b"]
    error = await failure(call.read())
    assert (error.code(), error.details()) == (grpc.StatusCode.ABORTED, "enough")


async def test_abort_before_any(world):
    async def serve(request, context):
        await context.abort(grpc.StatusCode.ABORTED, "none")
        yield b""

    ways = await world.start(unary_stream=serve)
    assert (await failure(all_of(ways.us(b"")))).code() is grpc.StatusCode.ABORTED


async def test_an_escaped_exception(world):
    async def serve(request, context):
        yield b"a"
        raise RuntimeError("surprise")

    ways = await world.start(unary_stream=serve)
    call = ways.us(b"")
    assert await call.read() == b"a"
    error = await failure(call.read())
    assert error.code() is grpc.StatusCode.UNKNOWN
    assert "surprise" in error.details()


async def test_a_status_without_abort(world):
    async def serve(request, context):
        yield b"a"
        context.set_code(grpc.StatusCode.DATA_LOSS)
        context.set_details("partly")

    ways = await world.start(unary_stream=serve)
    call = ways.us(b"")
    assert await call.read() == b"a"
    error = await failure(call.read())
    assert (error.code(), error.details()) == (grpc.StatusCode.DATA_LOSS, "partly")


async def test_cancel(world):
    seen = Seen()
    ways = await world.start(unary_stream=seen.hang_stream)
    call = ways.us(b"")
    assert await call.read() == b"first"
    assert call.cancel()
    assert not call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call.read()
    assert await call.code() is grpc.StatusCode.CANCELLED
    await soon(seen.cancelled.wait())


async def test_cancel_at_birth(world):
    ways = await world.start(unary_stream=count)
    call = ways.us(b"5")
    assert call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call.read()


async def test_cancel_within_the_loop(world):
    seen = Seen()
    ways = await world.start(unary_stream=seen.hang_stream)
    call = ways.us(b"")

    async def loop():
        async for message in call:
            seen.got.append(message)
            call.cancel()

    with pytest.raises(asyncio.CancelledError):
        await loop()
    assert seen.got == [b"first"]
    await soon(seen.cancelled.wait())


async def test_cancelling_the_reading_task(world):
    seen = Seen()
    ways = await world.start(unary_stream=seen.hang_stream)
    call = ways.us(b"")
    assert await call.read() == b"first"
    task = asyncio.create_task(call.read())
    await soon(seen.started.wait())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await soon(seen.cancelled.wait())
    assert call.cancelled()


async def test_leaving_the_loop_and_coming_back(world):
    ways = await world.start(unary_stream=count)
    call = ways.us(b"4")
    async for message in call:
        if message == b"1":
            break
    assert [message async for message in call] == [b"2", b"3"]


async def test_a_deadline(world):
    seen = Seen()
    ways = await world.start(unary_stream=seen.hang_stream)
    error = await failure(all_of(ways.us(b"", timeout=0.2)))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await soon(seen.cancelled.wait())


async def test_big_messages(world):
    async def serve(request, context):
        for _ in range(4):
            yield b"a" * 2_500_000

    ways = await world.start(unary_stream=serve)
    assert [len(m) for m in await all_of(ways.us(b"b" * 2_500_000))] == [2_500_000] * 4


async def test_one_beyond_the_cap(world):
    async def serve(request, context):
        yield b"a"
        yield b"a" * (4 * 1024 * 1024 + 1)

    ways = await world.start(unary_stream=serve)
    call = ways.us(b"")
    assert await call.read() == b"a"
    assert (await failure(call.read())).code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_reader_that_waits_loses_nothing(world):
    seen = Seen()

    async def serve(request, context):
        for index in range(2000):
            yield str(index).encode()
            seen.got.append(index)

    ways = await world.start(unary_stream=serve)
    call = ways.us(b"")
    assert await call.read() == b"0"
    await turn(0.05)
    rest = []
    while (message := await call.read()) is not grpc.aio.EOF:
        rest.append(message)
    assert rest == [str(n).encode() for n in range(1, 2000)]


async def test_ten_streams_at_once(world):
    ways = await world.start(unary_stream=count)
    got = await asyncio.gather(*(all_of(ways.us(str(n).encode())) for n in range(10, 20)))
    assert [len(each) for each in got] == list(range(10, 20))


async def test_compressed(world):
    async def serve(request, context):
        context.set_compression(grpc.Compression.Gzip)
        yield b"a" * 50_000
        context.disable_next_message_compression()
        yield b"b" * 50_000

    ways = await world.start(unary_stream=serve)
    got = await all_of(ways.us(b"q" * 5000, compression=grpc.Compression.Gzip))
    assert got == [b"a" * 50_000, b"b" * 50_000]


async def test_done_callbacks(world):
    ways = await world.start(unary_stream=count)
    call = ways.us(b"2")
    done = asyncio.Event()
    call.add_done_callback(lambda _call: done.set())
    assert not done.is_set()
    await all_of(call)
    await soon(done.wait())


async def test_writing_by_hand_after_the_end_is_misuse(world):
    seen = Seen()

    async def serve(request, context):
        await context.write(b"a")
        try:
            await context.abort(grpc.StatusCode.ABORTED, "")
        except grpc.aio.AbortError:
            try:
                await context.write(b"b")
            except Exception as error:  # noqa: BLE001 - the kinds differ
                seen.got.append(error)
        seen.release.set()

    ways = await world.start(unary_stream=serve)
    call = ways.us(b"")
    assert await call.read() == b"a"
    assert (await failure(call.read())).code() is grpc.StatusCode.ABORTED
    await soon(seen.release.wait())
    assert len(seen.got) == 1
