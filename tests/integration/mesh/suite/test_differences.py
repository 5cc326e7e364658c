"""What differs from grpc.aio: one test for each row of the table in docs/mesh.md."""

import asyncio
import gc
import re
import sys
from pathlib import Path

import grpc
import pytest

from tests.integration.mesh.suite.conftest import World, method
from tests.integration.mesh.suite.waits import (
    Seen,
    all_of,
    count,
    echo,
    failure,
    soon,
    turn,
)

DOC = Path(__file__).parents[4] / "docs" / "mesh.md"


@pytest.fixture(params=["nats", "loopback"])
async def mesh(request):
    nats = request.getfixturevalue("nats") if request.param == "nats" else None
    made = World(request.param, nats)
    yield made
    await asyncio.wait_for(made.close(), 20)


async def test_no_timeout_is_the_default_timeout(mesh):
    await mesh.serve(unary_unary=Seen().hang_unary)
    channel = await mesh.channel(default_timeout_s=0.2)
    call = channel.unary_unary(method("unary_unary"))(b"")
    assert 0 < call.time_remaining() <= 0.2
    assert (await failure(call)).code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_no_server_shows_at_once(mesh):
    channel = await mesh.channel()
    start = asyncio.get_running_loop().time()
    await failure(channel.unary_unary(method("unary_unary"))(b""))
    assert asyncio.get_running_loop().time() - start < 1


async def test_answers_wait_for_credits(mesh):
    seen = Seen()

    async def serve(request, context):
        for _ in range(1000):
            yield b"x"
            seen.got.append(1)

    ways = await mesh.start(unary_stream=serve)
    call = ways.us(b"")
    assert await call.read() == b"x"
    await turn(0.1)
    assert len(seen.got) <= 65
    call.cancel()


async def test_a_dropped_stream_ends_at_once(mesh):
    seen = Seen()
    ways = await mesh.start(unary_stream=seen.hang_stream)
    gc.disable()
    try:

        async def glance():
            async for message in ways.us(b""):
                return message
            return None

        assert await glance() == b"first"
        await soon(seen.cancelled.wait())
    finally:
        gc.enable()


async def test_abort_with_ok_is_unknown(mesh):
    async def fail(request, context):
        await context.abort(grpc.StatusCode.OK, "fine")

    ways = await mesh.start(unary_unary=fail)
    assert (await failure(ways.uu(b"x"))).code() is grpc.StatusCode.UNKNOWN


async def test_a_servicer_that_cancels_itself_ends_the_call(mesh):
    async def serve(request, context):
        raise asyncio.CancelledError

    ways = await mesh.start(unary_unary=serve)
    assert (await failure(ways.uu(b"x"))).code() is grpc.StatusCode.CANCELLED


async def test_a_serializer_that_fails_raises_at_the_call(mesh):
    def fail(_message):
        raise ValueError("cannot")

    await mesh.serve(unary_unary=echo)
    channel = await mesh.channel()
    with pytest.raises(ValueError, match="cannot"):
        channel.unary_unary(method("unary_unary"), request_serializer=fail)(b"x")


async def test_an_answer_that_cannot_be_parsed_is_internal(mesh):
    def fail(_message):
        raise ValueError("cannot")

    await mesh.serve(unary_unary=echo)
    channel = await mesh.channel()
    call = channel.unary_unary(method("unary_unary"), response_deserializer=fail)
    assert (await failure(call(b"x"))).code() is grpc.StatusCode.INTERNAL


async def test_metadata_that_cannot_travel_raises_at_the_call(mesh):
    ways = await mesh.start(unary_unary=echo)
    for key in ("Upper", "grpc-timeout", "gl-window"):
        with pytest.raises(ValueError, match="metadata"):
            ways.uu(b"", metadata=((key, "x"),))


async def test_a_servicer_cannot_stream_to_a_unary_caller(mesh):
    await mesh.serve(unary_stream=count)
    channel = await mesh.channel()
    call = channel.unary_unary(method("unary_stream"))(b"3")
    assert (await failure(call)).code() is grpc.StatusCode.UNIMPLEMENTED


async def test_one_interceptor_of_several_arities(mesh):
    log = []

    class Both(grpc.aio.UnaryUnaryClientInterceptor, grpc.aio.UnaryStreamClientInterceptor):
        async def intercept_unary_unary(self, continuation, details, request):
            log.append(details.method)
            return await continuation(details, request)

        async def intercept_unary_stream(self, continuation, details, request):
            log.append(details.method)
            return await continuation(details, request)

    ways = await mesh.start(unary_unary=echo, unary_stream=count, client_interceptors=[Both()])
    await ways.uu(b"")
    await all_of(ways.us(b"1"))
    assert log == [method("unary_unary"), method("unary_stream")]


async def test_handlers_have_a_service_name(mesh):
    class Anything(grpc.GenericRpcHandler):
        def service(self, handler_call_details):
            return None

    server = await mesh.serve(unary_unary=echo)
    with pytest.raises(ValueError, match="named"):
        server.add_generic_rpc_handlers((Anything(),))


async def test_there_are_no_ports(mesh):
    server = await mesh.serve(unary_unary=echo)
    with pytest.raises(NotImplementedError):
        server.add_insecure_port("127.0.0.1:0")


async def test_who_calls_is_not_in_the_metadata(mesh):
    async def tell(request, context):
        return repr((context.peer(), context.auth_context())).encode()

    ways = await mesh.start(unary_unary=tell)
    assert await ways.uu(b"", metadata=(("node", "n-1"),)) == b"('nats:service:0', {})"


def test_each_row_of_the_table_has_its_test():
    table = DOC.read_text().split("## What differs from gRPC")[1].split("\n## ")[0]
    named = set(re.findall(r"`(test_\w+)`", table))
    here = {name for name in vars(sys.modules[__name__]) if name.startswith("test_")}
    elsewhere = {
        "test_a_killed_instance_ends_its_calls",
        "test_a_silent_server_is_noticed_before_the_deadline",
    }
    assert named == (here | elsewhere) - {"test_each_row_of_the_table_has_its_test"}
