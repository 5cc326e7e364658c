"""Servers: interceptors, start and stop, bounds."""

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
    soon,
    still,
)

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


class Notes(grpc.aio.ServerInterceptor):
    """Remembers what passes."""

    def __init__(self, name, log):
        self.name = name
        self.log = log

    async def intercept_service(self, continuation, details):
        metadata = {pair.key: pair.value for pair in details.invocation_metadata}
        self.log.append((self.name, details.method.rpartition("/")[2], metadata.get("who")))
        return await continuation(details)


class Wraps(grpc.aio.ServerInterceptor):
    """Replaces the handler by what a function makes of it."""

    def __init__(self, make):
        self.make = make

    async def intercept_service(self, continuation, details):
        return self.make(await continuation(details))


async def test_interceptors_see_method_and_metadata_in_order(world):
    log = []
    chain = [Notes("one", log), Notes("two", log)]
    ways = await world.start(unary_unary=echo, interceptors=chain)
    assert await ways.uu(b"x", metadata=(("who", "me"),)) == b"x"
    assert log == [("one", "unary_unary", "me"), ("two", "unary_unary", "me")]


async def test_interceptors_of_every_arity(world):
    log = []
    ways = await world.start(
        unary_unary=echo,
        unary_stream=count,
        stream_unary=join,
        stream_stream=chat,
        interceptors=[Notes("n", log)],
    )
    await ways.uu(b"")
    await all_of(ways.us(b"1"))
    await ways.su(given(b"a"))
    await all_of(ways.ss(given(b"a")))
    kinds = [kind for _, kind, _ in log]
    assert kinds == ["unary_unary", "unary_stream", "stream_unary", "stream_stream"]


async def test_an_interceptor_replaces_the_handler(world):
    async def denied(request, context):
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, "who are you")

    def make(_handler):
        return grpc.unary_unary_rpc_method_handler(denied)

    ways = await world.start(unary_unary=echo, interceptors=[Wraps(make)])
    error = await failure(ways.uu(b"x"))
    assert (error.code(), error.details()) == (grpc.StatusCode.UNAUTHENTICATED, "who are you")


async def test_an_interceptor_wraps_a_stream(world):
    def make(handler):
        async def louder(request, context):
            async for answer in handler.unary_stream(request, context):
                yield answer + b"!"

        return grpc.unary_stream_rpc_method_handler(louder)

    ways = await world.start(unary_stream=count, interceptors=[Wraps(make)])
    assert await all_of(ways.us(b"2")) == [b"0!", b"1!"]


async def test_an_interceptor_wraps_both_streams(world):
    def make(handler):
        async def softer(requests, context):
            async def lower():
                async for request in requests:
                    yield request.lower()

            async for answer in handler.stream_stream(lower(), context):
                yield answer

        return grpc.stream_stream_rpc_method_handler(softer)

    ways = await world.start(stream_stream=chat, interceptors=[Wraps(make)])
    assert await all_of(ways.ss(given(b"A"))) == [b"re:a"]


async def test_context_variables_of_an_interceptor_do_not_leak(world):
    import contextvars

    var = contextvars.ContextVar("var", default="none")

    class Sets(grpc.aio.ServerInterceptor):
        async def intercept_service(self, continuation, details):
            metadata = {pair.key: pair.value for pair in details.invocation_metadata}
            if "who" in metadata:
                var.set(metadata["who"])
            return await continuation(details)

    async def tell(request, context):
        return var.get().encode()

    ways = await world.start(unary_unary=tell, interceptors=[Sets()])
    assert await ways.uu(b"", metadata=(("who", "me"),)) == b"me"
    assert await ways.uu(b"") == b"none"


async def test_stop_with_grace_lets_calls_end(world):
    seen = Seen()

    async def serve(request, context):
        seen.started.set()
        await seen.release.wait()
        return request

    ways = await world.start(unary_unary=serve)
    call = ways.uu(b"kept")
    await soon(seen.started.wait())
    stopping = asyncio.create_task(world.server.stop(5))
    await still(stopping, 0.05)
    seen.release.set()
    assert await call == b"kept"
    await soon(stopping)


async def test_stop_after_grace_ends_calls(world):
    seen = Seen()
    ways = await world.start(unary_unary=seen.hang_unary)
    call = ways.uu(b"x")
    await soon(seen.started.wait())
    await soon(world.server.stop(0.1))
    assert (await failure(call)).code() is UNAVAILABLE
    await soon(seen.cancelled.wait())


async def test_stop_without_grace_ends_streams(world):
    seen = Seen()
    ways = await world.start(stream_stream=seen.hang_chat)
    call = ways.ss()
    assert await soon(call.read()) == b"first"
    await soon(world.server.stop(None))
    assert (await failure(call.read())).code() is UNAVAILABLE
    await soon(seen.cancelled.wait())


async def test_stopping_twice(world):
    await world.start(unary_unary=echo)
    await soon(asyncio.gather(world.server.stop(0.1), world.server.stop(None)))
    await soon(world.server.stop(None))


async def test_calls_after_stop(world):
    ways = await world.start(unary_unary=echo)
    await world.server.stop(None)
    assert (await failure(ways.uu(b"x"))).code() is UNAVAILABLE


async def test_waiting_for_termination(world):
    await world.start(unary_unary=echo)
    assert await world.server.wait_for_termination(0.05) is True
    waiting = asyncio.create_task(world.server.wait_for_termination())
    await world.server.stop(None)
    assert await soon(waiting) is False


async def test_more_calls_than_the_bound(world):
    seen = Seen()
    ways = await world.start(unary_unary=seen.hang_unary, max_concurrent=1)
    kept = ways.uu(b"x")
    await soon(seen.started.wait())
    error = await failure(ways.uu(b"y"))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    kept.cancel()


async def test_an_interceptor_that_fails(world):
    class Fails(grpc.aio.ServerInterceptor):
        async def intercept_service(self, continuation, details):
            raise RuntimeError("surprise")

    ways = await world.start(unary_unary=echo, interceptors=[Fails()])
    assert (await failure(ways.uu(b"x"))).code() is grpc.StatusCode.UNKNOWN


async def test_a_done_callback_of_the_context(world):
    seen = Seen()

    async def serve(request, context):
        context.add_done_callback(lambda _context: seen.release.set())
        return request

    ways = await world.start(unary_unary=serve)
    assert await ways.uu(b"x") == b"x"
    await soon(seen.release.wait())


@pytest.mark.parametrize("kind", ["unary_unary", "stream_unary"])
async def test_an_unwritten_method(world, kind):
    other = {"unary_unary": "stream_unary", "stream_unary": "unary_unary"}[kind]
    ways = await world.start(**{other: join if other == "stream_unary" else echo})
    call = ways.uu(b"") if kind == "unary_unary" else ways.su(given(b"a"))
    assert (await failure(call)).code() is grpc.StatusCode.UNIMPLEMENTED
