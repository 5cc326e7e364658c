"""Client interceptors of every arity."""

import asyncio

import grpc
import pytest

from tests.integration.mesh.suite.waits import (
    Seen,
    all_of,
    chat,
    count,
    echo,
    failure,
    given,
    join,
    metadata_of,
    soon,
)


class _Marks:
    """Leaves its name in the metadata of each call, and remembers what it saw."""

    def __init__(self, name="mark", log=None):
        self.name = name
        self.log = [] if log is None else log

    def _mark(self, details):
        method = details.method
        self.log.append((self.name, method.decode() if isinstance(method, bytes) else method))
        details.metadata.add(self.name, "yes")
        return details


class _MarksUnary(_Marks, grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(self, continuation, details, request):
        return await continuation(self._mark(details), request)


class _MarksAnswers(_Marks, grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(self, continuation, details, request):
        return await continuation(self._mark(details), request)


class _MarksQuestions(_Marks, grpc.aio.StreamUnaryClientInterceptor):
    async def intercept_stream_unary(self, continuation, details, requests):
        return await continuation(self._mark(details), requests)


class _MarksChats(_Marks, grpc.aio.StreamStreamClientInterceptor):
    async def intercept_stream_stream(self, continuation, details, requests):
        return await continuation(self._mark(details), requests)


def marks(name="mark", log=None):
    """One for each arity: grpc.aio takes an interceptor of several for its first alone."""
    return [kind(name, log) for kind in (_MarksUnary, _MarksAnswers, _MarksQuestions, _MarksChats)]


class Unary(grpc.aio.UnaryUnaryClientInterceptor):
    """Does what a test's function does."""

    def __init__(self, behaviour):
        self.behaviour = behaviour

    async def intercept_unary_unary(self, continuation, details, request):
        return await self.behaviour(continuation, details, request)


class Stream(grpc.aio.UnaryStreamClientInterceptor):
    def __init__(self, behaviour):
        self.behaviour = behaviour

    async def intercept_unary_stream(self, continuation, details, request):
        return await self.behaviour(continuation, details, request)


class Gather(grpc.aio.StreamUnaryClientInterceptor):
    def __init__(self, behaviour):
        self.behaviour = behaviour

    async def intercept_stream_unary(self, continuation, details, requests):
        return await self.behaviour(continuation, details, requests)


class Chat(grpc.aio.StreamStreamClientInterceptor):
    def __init__(self, behaviour):
        self.behaviour = behaviour

    async def intercept_stream_stream(self, continuation, details, requests):
        return await self.behaviour(continuation, details, requests)


def marked(context):
    return metadata_of(context).get("mark", "no").encode()


async def test_unary(world):
    async def serve(request, context):
        return marked(context)

    ways = await world.start(unary_unary=serve, client_interceptors=marks())
    assert await ways.uu(b"", metadata=grpc.aio.Metadata()) == b"yes"


async def test_a_stream_of_answers(world):
    async def serve(request, context):
        yield marked(context)

    ways = await world.start(unary_stream=serve, client_interceptors=marks())
    assert await all_of(ways.us(b"", metadata=grpc.aio.Metadata())) == [b"yes"]


async def test_a_stream_of_answers_by_read(world):
    ways = await world.start(unary_stream=count, client_interceptors=marks())
    call = ways.us(b"1", metadata=grpc.aio.Metadata())
    assert [await call.read(), await call.read()] == [b"0", grpc.aio.EOF]


async def test_a_stream_of_questions(world):
    async def serve(requests, context):
        return marked(context) + b"".join([request async for request in requests])

    ways = await world.start(stream_unary=serve, client_interceptors=marks())
    assert await ways.su(given(b"1", b"2"), metadata=grpc.aio.Metadata()) == b"yes12"


async def test_a_stream_of_questions_by_write(world):
    ways = await world.start(stream_unary=join, client_interceptors=marks())
    call = ways.su(metadata=grpc.aio.Metadata())
    await call.write(b"a")
    await call.write(b"b")
    await call.done_writing()
    await call.done_writing()
    assert await call == b"a,b"


async def test_both_streams(world):
    async def serve(requests, context):
        async for request in requests:
            yield marked(context) + request

    ways = await world.start(stream_stream=serve, client_interceptors=marks())
    call = ways.ss(given(b"1", b"2"), metadata=grpc.aio.Metadata())
    assert await all_of(call) == [b"yes1", b"yes2"]


async def test_both_streams_by_write_and_read(world):
    ways = await world.start(stream_stream=chat, client_interceptors=marks())
    call = ways.ss(metadata=grpc.aio.Metadata())
    await call.write(b"a")
    assert await call.read() == b"re:a"
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK


async def test_they_run_in_the_order_given(world):
    log = []
    chain = [*marks("one", log), *marks("two", log)]
    ways = await world.start(unary_unary=echo, client_interceptors=chain)
    await ways.uu(b"", metadata=grpc.aio.Metadata())
    assert log == [
        ("one", "/gridlease.suite.v1.Suite/unary_unary"),
        ("two", "/gridlease.suite.v1.Suite/unary_unary"),
    ]


async def test_only_its_own_arity(world):
    seen = Seen()

    async def note(continuation, details, request):
        seen.got.append("unary")
        return await continuation(details, request)

    ways = await world.start(
        unary_unary=echo, unary_stream=count, client_interceptors=[Unary(note)]
    )
    await all_of(ways.us(b"1"))
    assert seen.got == []
    await ways.uu(b"")
    assert seen.got == ["unary"]


async def test_changing_the_question(world):
    async def double(continuation, details, request):
        return await continuation(details, request * 2)

    ways = await world.start(unary_unary=echo, client_interceptors=[Unary(double)])
    assert await ways.uu(b"a") == b"aa"


async def test_waiting_for_the_answer_inside(world):
    seen = Seen()

    async def look(continuation, details, request):
        call = await continuation(details, request)
        seen.got.append((await call, await call.code()))
        return call

    ways = await world.start(unary_unary=echo, client_interceptors=[Unary(look)])
    assert await ways.uu(b"a") == b"a"
    assert seen.got == [(b"a", grpc.StatusCode.OK)]


async def test_answering_without_a_call(world):
    async def answer(continuation, details, request):
        return b"from here"

    ways = await world.start(unary_unary=echo, client_interceptors=[Unary(answer)])
    call = ways.uu(b"a")
    assert await call == b"from here"
    assert await call.code() is grpc.StatusCode.OK
    assert call.done()
    assert not call.cancelled()


async def test_failing_without_a_call(world):
    async def refuse(continuation, details, request):
        raise grpc.aio.AioRpcError(
            grpc.StatusCode.PERMISSION_DENIED,
            grpc.aio.Metadata(),
            grpc.aio.Metadata(("why", "so")),
            details="not here",
        )

    ways = await world.start(unary_unary=echo, client_interceptors=[Unary(refuse)])
    call = ways.uu(b"a")
    error = await failure(call)
    assert (error.code(), error.details()) == (grpc.StatusCode.PERMISSION_DENIED, "not here")
    assert await call.code() is grpc.StatusCode.PERMISSION_DENIED
    assert await call.details() == "not here"
    assert (await call.trailing_metadata())["why"] == "so"
    assert call.done()


async def test_a_bug_inside_comes_out(world):
    async def bug(continuation, details, request):
        raise ZeroDivisionError

    ways = await world.start(unary_unary=echo, client_interceptors=[Unary(bug)])
    with pytest.raises(ZeroDivisionError):
        await ways.uu(b"a")


async def test_trying_again(world):
    seen = Seen()

    async def flaky(request, context):
        seen.got.append(request)
        if len(seen.got) < 3:
            await context.abort(grpc.StatusCode.ABORTED, "again")
        return request

    async def retry(continuation, details, request):
        while True:
            call = await continuation(details, request)
            if await call.code() is grpc.StatusCode.OK:
                return call

    ways = await world.start(unary_unary=flaky, client_interceptors=[Unary(retry)])
    assert await ways.uu(b"a") == b"a"
    assert len(seen.got) == 3


async def test_a_failure_passes_through(world):
    async def fail(request, context):
        await context.abort(grpc.StatusCode.NOT_FOUND, "gone")

    ways = await world.start(unary_unary=fail, client_interceptors=marks())
    call = ways.uu(b"", metadata=grpc.aio.Metadata())
    assert (await failure(call)).code() is grpc.StatusCode.NOT_FOUND
    assert await call.code() is grpc.StatusCode.NOT_FOUND


async def test_cancel_while_it_decides(world):
    seen = Seen()

    async def linger(continuation, details, request):
        await seen.hang()

    ways = await world.start(unary_unary=echo, client_interceptors=[Unary(linger)])
    call = ways.uu(b"a")
    await soon(seen.started.wait())
    assert call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert call.cancelled()
    assert await call.code() is grpc.StatusCode.CANCELLED


async def test_cancel_after_it_decided(world):
    seen = Seen()
    ways = await world.start(unary_unary=seen.hang_unary, client_interceptors=marks())
    call = ways.uu(b"a", metadata=grpc.aio.Metadata())
    await soon(seen.started.wait())
    assert call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await soon(seen.cancelled.wait())


async def test_done_callbacks(world):
    ways = await world.start(unary_unary=echo, client_interceptors=marks())
    call = ways.uu(b"", metadata=grpc.aio.Metadata())
    done = asyncio.Event()
    call.add_done_callback(lambda _call: done.set())
    await call
    await soon(done.wait())


async def test_metadata_passes_through(world):
    async def serve(request, context):
        await context.send_initial_metadata((("first", "1"),))
        context.set_trailing_metadata((("last", "2"),))
        return request

    ways = await world.start(unary_unary=serve, client_interceptors=marks())
    call = ways.uu(b"", metadata=grpc.aio.Metadata())
    assert (await call.initial_metadata())["first"] == "1"
    assert (await call.trailing_metadata())["last"] == "2"


async def test_wrapping_the_stream_of_answers(world):
    async def louder(continuation, details, request):
        call = await continuation(details, request)

        async def answers():
            async for answer in call:
                yield answer + b"!"

        return answers()

    ways = await world.start(unary_stream=count, client_interceptors=[Stream(louder)])
    call = ways.us(b"2")
    assert await all_of(call) == [b"0!", b"1!"]
    assert await call.code() is grpc.StatusCode.OK


async def test_wrapping_the_stream_of_questions(world):
    async def louder(continuation, details, requests):
        async def more():
            async for request in requests:
                yield request + b"!"

        return await continuation(details, more())

    ways = await world.start(stream_unary=join, client_interceptors=[Gather(louder)])
    assert await ways.su(given(b"a", b"b")) == b"a!,b!"


async def test_wrapping_both_streams(world):
    async def louder(continuation, details, requests):
        async def more():
            async for request in requests:
                yield request + b"!"

        call = await continuation(details, more())

        async def answers():
            async for answer in call:
                yield answer + b"?"

        return answers()

    ways = await world.start(stream_stream=chat, client_interceptors=[Chat(louder)])
    assert await all_of(ways.ss(given(b"a"))) == [b"re:a!?"]


async def test_a_stream_that_fails_behind_it(world):
    async def fail(request, context):
        yield b"a"
        await context.abort(grpc.StatusCode.ABORTED, "enough")

    ways = await world.start(unary_stream=fail, client_interceptors=marks())
    call = ways.us(b"", metadata=grpc.aio.Metadata())
    assert await call.read() == b"a"
    assert (await failure(call.read())).code() is grpc.StatusCode.ABORTED
    assert await call.code() is grpc.StatusCode.ABORTED


async def test_cancelling_a_stream_behind_it(world):
    seen = Seen()
    ways = await world.start(unary_stream=seen.hang_stream, client_interceptors=marks())
    call = ways.us(b"", metadata=grpc.aio.Metadata())
    assert await call.read() == b"first"
    assert call.cancel()
    assert await call.code() is grpc.StatusCode.CANCELLED
    await soon(seen.cancelled.wait())


async def test_write_after_the_end_behind_it(world):
    async def early(requests, context):
        return b"early"

    ways = await world.start(stream_unary=early, client_interceptors=marks())
    call = ways.su(metadata=grpc.aio.Metadata())
    assert await call == b"early"
    with pytest.raises(asyncio.InvalidStateError):
        await call.write(b"a")


async def test_write_and_an_iterator_do_not_mix_behind_it(world):
    ways = await world.start(stream_unary=join, client_interceptors=marks())
    call = ways.su(given(b"a"), metadata=grpc.aio.Metadata())
    with pytest.raises(grpc.aio.UsageError):
        await call.write(b"b")
    assert await call == b"a"


async def test_what_intercepts_nothing_is_refused(world):
    await world.serve(unary_unary=echo)
    with pytest.raises(ValueError, match=r"[Ii]ntercept"):
        await world.channel([object()])
