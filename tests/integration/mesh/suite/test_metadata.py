"""Metadata, both ways, at every time it may be sent."""

import asyncio

import grpc
import pytest

from tests.integration.mesh.suite.waits import (
    Seen,
    all_of,
    count,
    echo,
    failure,
    given,
    metadata_of,
    soon,
)


async def test_of_the_caller(world):
    seen = Seen()

    async def look(request, context):
        seen.got = metadata_of(context)
        return b""

    ways = await world.start(unary_unary=look)
    await ways.uu(b"", metadata=(("plain", "a b"), ("x-y_z.0", "1"), ("raw-bin", b"\x00\xff")))
    assert (seen.got["plain"], seen.got["x-y_z.0"], seen.got["raw-bin"]) == (
        "a b",
        "1",
        b"\x00\xff",
    )


async def test_repeated_keys_keep_their_order(world):
    seen = Seen()

    async def look(request, context):
        seen.got = [pair[1] for pair in context.invocation_metadata() if pair[0] == "many"]
        return b""

    ways = await world.start(unary_unary=look)
    await ways.uu(b"", metadata=(("many", "1"), ("many", "2"), ("many", "3")))
    assert seen.got == ["1", "2", "3"]


@pytest.mark.parametrize("value", ["", " ", "a" * 1000, "tab\tless"[:3]])
async def test_values(world, value):
    seen = Seen()

    async def look(request, context):
        seen.got = metadata_of(context)["key"]
        return b""

    ways = await world.start(unary_unary=look)
    await ways.uu(b"", metadata=(("key", value),))
    assert seen.got.strip() == value.strip()


async def test_a_metadata_object(world):
    seen = Seen()

    async def look(request, context):
        seen.got = metadata_of(context)["key"]
        return b""

    ways = await world.start(unary_unary=look)
    await ways.uu(b"", metadata=grpc.aio.Metadata(("key", "value")))
    assert seen.got == "value"


@pytest.mark.parametrize("pair", [("Upper Case", "x"), ("key", 1), (1, "x"), ("raw-bin", "text")])
async def test_what_cannot_travel_is_refused(world, pair):
    ways = await world.start(unary_unary=echo)

    async def call():
        await ways.uu(b"", metadata=(pair,))

    with pytest.raises((ValueError, TypeError, grpc.aio.BaseError)):
        await call()


async def test_initial_metadata_of_an_answer(world):
    async def serve(request, context):
        await context.send_initial_metadata((("first", "1"), ("first-bin", b"\x01")))
        return request

    ways = await world.start(unary_unary=serve)
    call = ways.uu(b"x")
    initial = await soon(call.initial_metadata())
    assert (initial["first"], initial["first-bin"]) == ("1", b"\x01")
    assert await call == b"x"
    assert (await call.initial_metadata())["first"] == "1"


async def test_initial_metadata_of_a_big_answer(world):
    async def serve(request, context):
        await context.send_initial_metadata((("first", "1"),))
        return request * 2_000_000

    ways = await world.start(unary_unary=serve)
    call = ways.uu(b"x")
    assert len(await call) == 2_000_000
    assert (await call.initial_metadata())["first"] == "1"


async def test_initial_metadata_is_sent_once(world):
    seen = Seen()

    async def serve(request, context):
        await context.send_initial_metadata((("first", "1"),))
        try:
            await context.send_initial_metadata((("first", "2"),))
        except Exception as error:  # noqa: BLE001 - the kinds differ
            seen.got.append(type(error))
        return request

    ways = await world.start(unary_unary=serve)
    call = ways.uu(b"x")
    assert await call == b"x"
    assert (await call.initial_metadata())["first"] == "1"
    assert len(seen.got) == 1


async def test_trailing_metadata_of_an_answer(world):
    async def serve(request, context):
        context.set_trailing_metadata((("last", "2"), ("last-bin", b"\x02")))
        assert dict(context.trailing_metadata())["last"] == "2"
        return request

    ways = await world.start(unary_unary=serve)
    call = ways.uu(b"x")
    assert await call == b"x"
    trailing = await call.trailing_metadata()
    assert (trailing["last"], trailing["last-bin"]) == ("2", b"\x02")


async def test_no_metadata_is_empty(world):
    ways = await world.start(unary_unary=echo)
    call = ways.uu(b"x")
    await call
    assert "first" not in (await call.initial_metadata())


async def test_of_a_stream_of_answers(world):
    async def serve(request, context):
        await context.send_initial_metadata((("first", "1"),))
        context.set_trailing_metadata((("last", "2"),))
        yield b"a"

    ways = await world.start(unary_stream=serve)
    call = ways.us(b"")
    assert (await soon(call.initial_metadata()))["first"] == "1"
    assert await all_of(call) == [b"a"]
    assert (await call.trailing_metadata())["last"] == "2"


async def test_of_a_stream_before_its_first_answer(world):
    seen = Seen()

    async def serve(request, context):
        await context.send_initial_metadata((("first", "1"),))
        await seen.release.wait()
        yield b"a"

    ways = await world.start(unary_stream=serve)
    call = ways.us(b"")
    assert (await soon(call.initial_metadata()))["first"] == "1"
    seen.release.set()
    assert await all_of(call) == [b"a"]


async def test_of_a_stream_of_questions(world):
    async def serve(requests, context):
        await context.send_initial_metadata((("first", metadata_of(context)["own"]),))
        context.set_trailing_metadata((("last", "2"),))
        return b"".join([request async for request in requests])

    ways = await world.start(stream_unary=serve)
    call = ways.su(given(b"a", b"b"), metadata=(("own", "mine"),))
    assert (await soon(call.initial_metadata()))["first"] == "mine"
    assert await call == b"ab"
    assert (await call.trailing_metadata())["last"] == "2"


async def test_of_both_streams(world):
    async def serve(requests, context):
        await context.send_initial_metadata((("first", "1"),))
        context.set_trailing_metadata((("last", "2"),))
        async for request in requests:
            yield request

    ways = await world.start(stream_stream=serve)
    call = ways.ss()
    assert (await soon(call.initial_metadata()))["first"] == "1"
    await call.write(b"a")
    assert await call.read() == b"a"
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert (await call.trailing_metadata())["last"] == "2"


async def test_trailers_of_a_failed_stream(world):
    async def serve(request, context):
        yield b"a"
        await context.abort(grpc.StatusCode.ABORTED, "no", (("why", "so"),))

    ways = await world.start(unary_stream=serve)
    error = await failure(all_of(ways.us(b"")))
    assert error.trailing_metadata()["why"] == "so"


async def test_initial_metadata_of_a_failed_call(world):
    async def serve(request, context):
        await context.send_initial_metadata((("first", "1"),))
        await context.abort(grpc.StatusCode.ABORTED, "no")

    ways = await world.start(unary_unary=serve)
    error = await failure(ways.uu(b""))
    assert error.initial_metadata()["first"] == "1"


async def test_asking_for_metadata_of_a_silent_stream_does_not_end_it(world):
    ways = await world.start(unary_stream=count)
    call = ways.us(b"3")
    await asyncio.wait_for(call.initial_metadata(), 5)
    assert await all_of(call) == [b"0", b"1", b"2"]
