"""What a stub and a servicer see is the same on grpc.aio, on NATS and on the loopback."""

import asyncio

import grpc
import pytest
from gridlease_kernel.faults import OverQuota
from gridlease_mesh import trace
from gridlease_mesh.interceptors import FaultsToStatus
from gridlease_mesh.status import fault_from_error

from tests.integration.mesh.conftest import TRANSPORTS
from tests.integration.mesh.echo import echo_pb2, echo_pb2_grpc

SOON_S = 5.0
Say = echo_pb2.SayRequest
Repeat = echo_pb2.RepeatRequest


async def soon(awaitable):
    return await asyncio.wait_for(awaitable, SOON_S)


async def _all(call):
    return [answer async for answer in call]


async def test_unary_answers(pair):
    answer = await pair.stub.Say(Say(text="hällo"), timeout=SOON_S)
    assert (answer.text, answer.node) == ("hällo", "")


async def test_many_at_once_get_their_own_answers(pair):
    calls = [pair.stub.Say(Say(text=str(n)), timeout=SOON_S) for n in range(200)]
    assert [answer.text for answer in await asyncio.gather(*calls)] == [str(n) for n in range(200)]


async def test_call_state_after_success(pair):
    call = pair.stub.Say(Say(text="x"), timeout=SOON_S)
    done = []
    call.add_done_callback(done.append)
    await call
    assert await call.code() is grpc.StatusCode.OK
    assert (call.done(), call.cancelled(), await call.details()) == (True, False, "")
    assert (await call).text == "x"
    await asyncio.sleep(0)
    assert len(done) == 1


async def test_metadata_both_ways(pair):
    sent = (("plain", "a b"), ("some-bin", b"\x00\x01\xfe"))
    call = pair.stub.Say(Say(mode="metadata"), timeout=SOON_S, metadata=sent)
    await call
    assert pair.echo.metadata["plain"] == "a b"
    assert pair.echo.metadata["some-bin"] == b"\x00\x01\xfe"
    initial, trailing = await call.initial_metadata(), await call.trailing_metadata()
    assert (initial["first"], initial["first-bin"]) == ("1", b"\x01")
    assert (trailing["last"], trailing["last-bin"]) == ("2", b"\x02")


async def test_abort_carries_code_details_and_trailers(pair):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await pair.stub.Say(Say(mode="abort"), timeout=SOON_S)
    error = caught.value
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert error.details() == "not now: ä\n%"
    assert dict(error.trailing_metadata())["why"] == "late"
    assert dict(error.trailing_metadata())["raw-bin"] == b"\x00\xff"


async def test_set_code_without_abort(pair):
    call = pair.stub.Say(Say(mode="set_code"), timeout=SOON_S)
    assert await call.code() is grpc.StatusCode.NOT_FOUND
    assert await call.details() == "no such thing"


async def test_an_escaped_exception_is_unknown(pair, caplog):
    call = pair.stub.Say(Say(mode="raise"), timeout=SOON_S)
    assert await call.code() is grpc.StatusCode.UNKNOWN


async def test_an_unwritten_method_is_unimplemented(pair):
    call = pair.stub.Forgotten(Say(), timeout=SOON_S)
    assert await call.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "Method not implemented!" in await call.details()


async def test_an_unknown_method_is_unimplemented(pair):
    channel = pair.make_channel()
    call = channel.unary_unary("/gridlease.meshtest.v1.EchoService/Nothing")(b"", timeout=SOON_S)
    assert await call.code() is grpc.StatusCode.UNIMPLEMENTED
    await channel.close()


async def test_deadline_on_both_sides(pair):
    call = pair.stub.Say(Say(mode="hang"), timeout=0.5)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await soon(call)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await soon(pair.echo.cancelled.wait())
    assert 0.0 < pair.echo.remaining_s <= 0.6


async def test_a_deadline_in_the_past(pair):
    call = pair.stub.Say(Say(), timeout=-1.0)
    assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_cancel_reaches_the_servicer(pair):
    call = pair.stub.Say(Say(mode="hang"), timeout=SOON_S)
    await soon(pair.echo.started.wait())
    assert call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await call.code() is grpc.StatusCode.CANCELLED
    assert call.cancelled()
    await soon(pair.echo.cancelled.wait())


async def test_cancelling_the_waiting_task_cancels_the_call(pair):
    async def ask():
        await pair.stub.Say(Say(mode="hang"), timeout=SOON_S)

    task = asyncio.create_task(ask())
    await soon(pair.echo.started.wait())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await soon(pair.echo.cancelled.wait())


async def test_large_messages_pass(pair):
    size = 3 << 20  # three times the broker's limit
    answer = await pair.stub.Say(Say(ballast=b"a" * size, answer_bytes=size), timeout=SOON_S)
    assert len(answer.ballast) == size


@pytest.mark.parametrize("fields", [{"ballast": b"a" * (5 << 20)}, {"answer_bytes": 5 << 20}])
async def test_beyond_the_cap_is_refused(pair, fields):
    call = pair.stub.Say(Say(**fields), timeout=SOON_S)
    assert await call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_stream_in_order(pair):
    call = pair.stub.Repeat(Repeat(count=1000), timeout=SOON_S)
    assert [answer.index async for answer in call] == list(range(1000))
    assert await call.code() is grpc.StatusCode.OK


async def test_stream_by_read(pair):
    call = pair.stub.Repeat(Repeat(count=2), timeout=SOON_S)
    assert [(await call.read()).index for _ in range(2)] == [0, 1]
    assert await call.read() is grpc.aio.EOF


async def test_stream_of_large_messages(pair):
    call = pair.stub.Repeat(Repeat(count=5, size_bytes=2_500_000), timeout=SOON_S)
    assert [len(answer.ballast) async for answer in call] == [2_500_000] * 5


async def test_stream_with_a_large_question(pair):
    call = pair.stub.Repeat(Repeat(count=2, ballast=b"a" * (2 << 20)), timeout=SOON_S)
    assert [answer.index async for answer in call] == [0, 1]


async def test_empty_stream(pair):
    assert [a async for a in pair.stub.Repeat(Repeat(count=0), timeout=SOON_S)] == []


async def test_stream_metadata(pair):
    call = pair.stub.Repeat(Repeat(count=1, mode="metadata"), timeout=SOON_S)
    assert (await call.initial_metadata())["first"] == "1"
    assert len([answer async for answer in call]) == 1
    assert (await call.trailing_metadata())["last"] == "2"


async def test_stream_abort_comes_after_what_was_sent(pair):
    call = pair.stub.Repeat(Repeat(count=10, mode="abort"), timeout=SOON_S)
    got = []

    async def collect():
        async for answer in call:
            got.append(answer.index)  # noqa: PERF401 - what came before the error counts

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await collect()
    assert got == [0, 1, 2]
    assert caught.value.code() is grpc.StatusCode.DATA_LOSS


async def test_stream_cancel_reaches_the_servicer(pair):
    call = pair.stub.Repeat(Repeat(count=1, mode="hang"), timeout=SOON_S)
    assert (await call.read()).index == 0
    call.cancel()
    await soon(pair.echo.cancelled.wait())
    assert await call.code() is grpc.StatusCode.CANCELLED


async def test_stream_deadline(pair):
    call = pair.stub.Repeat(Repeat(count=1, mode="hang"), timeout=0.3)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _all(call)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await soon(pair.echo.cancelled.wait())


async def test_a_slow_reader_holds_the_writer_back(pair):
    call = pair.stub.Repeat(Repeat(count=100_000, size_bytes=1000), timeout=SOON_S)
    assert (await call.read()).index == 0
    await asyncio.wait([asyncio.create_task(pair.echo.cancelled.wait())], timeout=0.3)
    # The mesh's credits are exact; HTTP/2 buffers megabytes.
    assert pair.echo.written <= (20_000 if pair.name == "grpc" else 97)
    call.cancel()
    if pair.name != "grpc":  # which tells a servicer that waits in a write only at its next one
        await soon(pair.echo.cancelled.wait())


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_fault_comes_back_whole(serve, transport):
    pair = await serve(transport, [FaultsToStatus()])
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await pair.stub.Say(Say(mode="fault"), timeout=SOON_S)
    fault = fault_from_error(caught.value)
    assert type(fault) is OverQuota
    assert (fault.message, fault.reason, fault.field, fault.remedy) == (
        "Two is all you may have.",
        "TOO_MANY",
        "text",
        "Ask for less.",
    )
    assert (fault.metadata, fault.retry_after_ms) == ({"limit": "2"}, 1500)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_an_unknown_exception_is_withheld_and_logged_once(serve, transport, caplog):
    pair = await serve(transport, [FaultsToStatus()])
    stream = pair.stub.Repeat(Repeat(count=9, mode="raise"), timeout=SOON_S)
    for answer in (pair.stub.Say(Say(mode="raise"), timeout=SOON_S), _all(stream)):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await answer
        assert caught.value.code() is grpc.StatusCode.INTERNAL
        assert "secret" not in caught.value.details()
    told = [r for r in caplog.records if r.name.startswith("gridlease")]
    assert len(told) == 2
    assert all("a secret" in str(r.exc_info[1]) for r in told)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_aborts_pass_the_fault_interceptor(serve, transport, caplog):
    pair = await serve(transport, [FaultsToStatus()])
    codes = [
        await pair.stub.Say(Say(mode=mode), timeout=SOON_S).code() for mode in ("abort", "set_code")
    ]
    assert codes == [grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.NOT_FOUND]
    assert await pair.stub.Forgotten(Say(), timeout=SOON_S).code() is grpc.StatusCode.UNIMPLEMENTED
    assert not [r for r in caplog.records if r.name.startswith("gridlease")]


class _Adds(grpc.aio.UnaryUnaryClientInterceptor, grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_unary(self, continuation, client_call_details, request):
        client_call_details.metadata.add("added", "yes")
        call = await continuation(client_call_details, request)
        self.code = await call.code()
        return call

    async def intercept_unary_stream(self, continuation, client_call_details, request):
        client_call_details.metadata.add("added", "yes")
        return await continuation(client_call_details, request)


async def test_client_interceptors_see_and_change_calls(pair):
    adds = _Adds()
    channel = pair.make_channel([adds])
    stub = echo_pb2_grpc.EchoServiceStub(channel)
    call = stub.Say(Say(text="x"), timeout=SOON_S, metadata=grpc.aio.Metadata(("own", "1")))
    assert (await call).text == "x"
    assert adds.code is grpc.StatusCode.OK
    assert (pair.echo.metadata["added"], pair.echo.metadata["own"]) == ("yes", "1")
    with pytest.raises(grpc.aio.AioRpcError):
        await stub.Say(Say(mode="abort"), timeout=SOON_S, metadata=grpc.aio.Metadata())
    await channel.close()


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_the_trace_goes_along(serve, transport):
    over_grpc = transport == "grpc"
    pair = await serve(transport, [trace.ServerTrace()] if over_grpc else [])
    channel = pair.make_channel([trace.ClientTrace()] if over_grpc else [])
    ours = trace.new_trace()
    with trace.use(ours):
        await echo_pb2_grpc.EchoServiceStub(channel).Say(
            Say(), timeout=SOON_S, metadata=grpc.aio.Metadata()
        )
    theirs = trace.parse(pair.echo.metadata["traceparent"])
    assert theirs.trace_id == pair.echo.trace.trace_id == ours.trace_id
    assert pair.echo.trace.span_id != ours.span_id
    await channel.close()
