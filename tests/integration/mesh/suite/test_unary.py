"""Unary calls: results, ends, cancelling, deadlines, aborts."""

import asyncio
import pickle

import grpc
import pytest

from tests.integration.mesh.suite.waits import Seen, echo, failure, metadata_of, soon

OK, CANCELLED = grpc.StatusCode.OK, grpc.StatusCode.CANCELLED


async def test_an_answer(world):
    ways = await world.start(unary_unary=echo)
    assert await ways.uu(b"hello") == b"hello"


async def test_an_empty_message(world):
    ways = await world.start(unary_unary=echo)
    assert await ways.uu(b"") == b""


async def test_a_hundred_at_once(world):
    ways = await world.start(unary_unary=echo)
    answers = await asyncio.gather(*(ways.uu(str(n).encode()) for n in range(100)))
    assert answers == [str(n).encode() for n in range(100)]


async def test_a_call_may_be_awaited_twice(world):
    ways = await world.start(unary_unary=echo)
    call = ways.uu(b"x")
    assert [await call, await call] == [b"x", b"x"]


async def test_two_tasks_await_one_call(world):
    ways = await world.start(unary_unary=echo)
    call = ways.uu(b"x")

    async def wait():
        return await call

    assert await asyncio.gather(wait(), wait()) == [b"x", b"x"]


async def test_state_after_success(world):
    ways = await world.start(unary_unary=echo)
    call = ways.uu(b"x")
    assert not call.done()
    await call
    assert (call.done(), call.cancelled(), call.cancel()) == (True, False, False)
    assert (await call.code(), await call.details()) == (OK, "")
    assert tuple(await call.trailing_metadata()) == ()


async def test_state_after_failure(world):
    async def fail(request, context):
        await context.abort(grpc.StatusCode.NOT_FOUND, "gone")

    ways = await world.start(unary_unary=fail)
    call = ways.uu(b"x")
    assert await call.code() is grpc.StatusCode.NOT_FOUND
    assert (call.done(), call.cancelled(), call.cancel()) == (True, False, False)
    assert await call.details() == "gone"
    assert "gone" in await call.debug_error_string()


async def test_the_status_may_be_asked_without_awaiting_the_answer(world):
    ways = await world.start(unary_unary=echo)
    assert await ways.uu(b"x").code() is OK


async def test_cancel(world):
    seen = Seen()
    ways = await world.start(unary_unary=seen.hang_unary)
    call = ways.uu(b"x")
    await soon(seen.started.wait())
    assert (call.cancel(), call.cancel()) == (True, False)
    with pytest.raises(asyncio.CancelledError):
        await call
    assert call.cancelled()
    assert (await call.code(), await call.details()) == (
        CANCELLED,
        "Locally cancelled by application!",
    )
    await soon(seen.cancelled.wait())


async def test_cancel_at_birth(world):
    ways = await world.start(unary_unary=echo)
    call = ways.uu(b"x")
    assert call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert call.cancelled()


async def test_cancelling_the_waiting_task(world):
    seen = Seen()
    ways = await world.start(unary_unary=seen.hang_unary)
    call = ways.uu(b"x")

    async def wait():
        await call

    task = asyncio.create_task(wait())
    await soon(seen.started.wait())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await call.code() is CANCELLED
    await soon(seen.cancelled.wait())


async def test_a_servicer_hears_of_its_calls_end(world):
    seen = Seen()

    async def serve(request, context):
        context.add_done_callback(lambda _context: seen.release.set())
        await seen.hang()

    ways = await world.start(unary_unary=serve)
    call = ways.uu(b"x")
    await soon(seen.started.wait())
    assert not seen.release.is_set()
    call.cancel()
    await soon(seen.release.wait())


async def test_a_deadline(world):
    seen = Seen()
    ways = await world.start(unary_unary=seen.hang_unary)
    call = ways.uu(b"x", timeout=0.2)
    error = await failure(call)
    assert (error.code(), error.details()) == (
        grpc.StatusCode.DEADLINE_EXCEEDED,
        "Deadline Exceeded",
    )
    await soon(seen.cancelled.wait())


async def test_a_deadline_that_is_over(world):
    ways = await world.start(unary_unary=echo)
    call = ways.uu(b"x", timeout=-1)
    assert await soon(call.code()) is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_time_remaining_on_both_sides(world):
    left = []

    async def look(request, context):
        left.append(context.time_remaining())
        return request

    ways = await world.start(unary_unary=look)
    call = ways.uu(b"x", timeout=3)
    assert 2.0 < call.time_remaining() <= 3.0
    await call
    assert 2.0 < left[0] <= 3.1


async def test_abort(world):
    async def fail(request, context):
        await context.abort(grpc.StatusCode.ABORTED, "ä → %\n")

    ways = await world.start(unary_unary=fail)
    error = await failure(ways.uu(b"x"))
    assert (error.code(), error.details()) == (grpc.StatusCode.ABORTED, "ä → %\n")


async def test_abort_carries_metadata(world):
    async def fail(request, context):
        trailing = (("why", "so"), ("raw-bin", b"\x00\xff"))
        await context.abort(grpc.StatusCode.ABORTED, "no", trailing)

    ways = await world.start(unary_unary=fail)
    error = await failure(ways.uu(b"x"))
    assert error.trailing_metadata()["why"] == "so"
    assert error.trailing_metadata()["raw-bin"] == b"\x00\xff"


async def test_abort_keeps_the_trailers_set_before(world):
    async def fail(request, context):
        context.set_trailing_metadata((("kept", "1"),))
        await context.abort(grpc.StatusCode.ABORTED, "no")

    ways = await world.start(unary_unary=fail)
    error = await failure(ways.uu(b"x"))
    assert error.trailing_metadata()["kept"] == "1"


async def test_an_abort_that_is_caught_still_ends_the_call(world):
    async def fail(request, context):
        try:
            await context.abort(grpc.StatusCode.DATA_LOSS, "lost")
        except grpc.aio.AbortError:
            return b"never seen"

    ways = await world.start(unary_unary=fail)
    assert (await failure(ways.uu(b"x"))).code() is grpc.StatusCode.DATA_LOSS


async def test_abort_is_sent_before_the_servicer_ends(world):
    seen = Seen()

    async def fail(request, context):
        try:
            await context.abort(grpc.StatusCode.DATA_LOSS, "lost")
        finally:
            await seen.release.wait()

    ways = await world.start(unary_unary=fail)
    assert (await failure(ways.uu(b"x"))).code() is grpc.StatusCode.DATA_LOSS
    seen.release.set()


async def test_a_second_abort_is_misuse(world):
    seen = Seen()

    async def fail(request, context):
        with pytest.raises(grpc.aio.AbortError):
            await context.abort(grpc.StatusCode.ABORTED, "one")
        try:
            await context.abort(grpc.StatusCode.ABORTED, "two")
        except Exception as error:
            seen.got.append(type(error))
            seen.release.set()
            raise

    ways = await world.start(unary_unary=fail)
    assert (await failure(ways.uu(b"x"))).details() == "one"
    await soon(seen.release.wait())
    assert seen.got == [grpc.aio.UsageError]


async def test_a_status_without_abort(world):
    async def fail(request, context):
        context.set_code(grpc.StatusCode.OUT_OF_RANGE)
        context.set_details("too far")
        assert (context.code(), context.details()) in (
            (grpc.StatusCode.OUT_OF_RANGE, "too far"),
            (grpc.StatusCode.OUT_OF_RANGE.value[0], "too far"),
        )
        return b"not sent"

    ways = await world.start(unary_unary=fail)
    error = await failure(ways.uu(b"x"))
    assert (error.code(), error.details()) == (grpc.StatusCode.OUT_OF_RANGE, "too far")


async def test_a_code_by_number(world):
    async def fail(request, context):
        context.set_code(grpc.StatusCode.ALREADY_EXISTS.value[0])
        return b""

    ways = await world.start(unary_unary=fail)
    assert (await failure(ways.uu(b"x"))).code() is grpc.StatusCode.ALREADY_EXISTS


async def test_an_escaped_exception(world):
    async def fail(request, context):
        raise ValueError("surprise")

    ways = await world.start(unary_unary=fail)
    error = await failure(ways.uu(b"x"))
    assert error.code() is grpc.StatusCode.UNKNOWN
    assert error.details() == "Unexpected <class 'ValueError'>: surprise"


async def test_serializers_run_on_both_sides_of_the_client(world):
    await world.serve(unary_unary=echo)
    channel = await world.channel()
    call = channel.unary_unary(
        "/gridlease.suite.v1.Suite/unary_unary",
        request_serializer=lambda number: str(number).encode(),
        response_deserializer=int,
    )
    assert await call(42, timeout=5) == 42


async def test_an_unknown_method(world):
    await world.serve(unary_unary=echo)
    channel = await world.channel()
    call = channel.unary_unary("/gridlease.suite.v1.Suite/nothing")(b"", timeout=5)
    error = await failure(call)
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_generic_handler(world):
    ways = await world.start(unary_unary=echo, generic=True)
    assert await ways.uu(b"x") == b"x"


async def test_a_big_message_each_way(world):
    ways = await world.start(unary_unary=echo)
    size = 3_500_000
    assert len(await ways.uu(b"a" * size)) == size


async def test_a_question_beyond_the_cap(world):
    ways = await world.start(unary_unary=echo)
    error = await failure(ways.uu(b"a" * (4 * 1024 * 1024 + 1)))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_an_answer_beyond_the_cap(world):
    async def grow(request, context):
        return b"a" * (4 * 1024 * 1024 + 1)

    ways = await world.start(unary_unary=grow)
    assert (await failure(ways.uu(b"x"))).code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("kind", [grpc.Compression.Gzip, grpc.Compression.Deflate])
async def test_compression_changes_nothing_that_is_seen(world, kind):
    async def compressed(request, context):
        context.set_compression(kind)
        return request * 2

    ways = await world.start(unary_unary=compressed)
    for size in (1, 100_000, 1_500_000):
        assert await ways.uu(b"a" * size, compression=kind) == b"a" * size * 2


async def test_a_plain_function_serves(world):
    def serve(request, context):
        context.set_trailing_metadata((("thread", "yes"),))
        return request + metadata_of(context)["tail"].encode()

    ways = await world.start(unary_unary=serve)
    call = ways.uu(b"a", metadata=(("tail", "b"),))
    assert await call == b"ab"
    assert (await call.trailing_metadata())["thread"] == "yes"


async def test_a_plain_function_aborts(world):
    def serve(request, context):
        context.abort(grpc.StatusCode.NOT_FOUND, "not in a thread either")

    ways = await world.start(unary_unary=serve)
    error = await failure(ways.uu(b"a"))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert error.details() == "not in a thread either"


async def test_the_peer_looks_like_an_address(world):
    async def tell(request, context):
        return context.peer().encode()

    ways = await world.start(unary_unary=tell)
    assert len((await ways.uu(b"")).decode().split(":")) == 3


async def test_errors_are_values(world):
    async def fail(request, context):
        await context.abort(grpc.StatusCode.NOT_FOUND, "gone", (("a", "b"),))

    ways = await world.start(unary_unary=fail)
    error = await failure(ways.uu(b"x"))
    again = pickle.loads(pickle.dumps(error))
    assert (again.code(), again.details()) == (error.code(), error.details())
    assert "NOT_FOUND" in repr(error)


async def test_a_closing_servicer_may_finish_its_work_after_a_cancel(world):
    seen = Seen()

    async def tidy(request, context):
        seen.started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            seen.got.append("tidied")
            seen.cancelled.set()
            raise

    ways = await world.start(unary_unary=tidy)
    call = ways.uu(b"x")
    await soon(seen.started.wait())
    call.cancel()
    await soon(seen.cancelled.wait())
    assert seen.got == ["tidied"]
