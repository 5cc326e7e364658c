"""The slow wire does what the direct one does, and is taken where the direct one cannot work."""

import asyncio
import logging

import grpc
import pytest
from gridlease_mesh import natswire, natswires
from gridlease_mesh.bus import Bus
from gridlease_mesh.natswire import NatsWire
from gridlease_mesh.publicwire import PublicWire
from gridlease_mesh.subjects import service_inbox

from tests.integration.mesh.echo import echo_pb2, echo_pb2_grpc
from tests.integration.mesh.servicer import Echo

SOON_S = 5.0


@pytest.fixture
def slow(monkeypatch):
    """A nats-py that lacks a private part."""
    monkeypatch.setattr(natswire, "missing_hooks", lambda: ["_pending"])


@pytest.fixture
async def join(nats):
    buses = []

    async def one(name):
        buses.append(await Bus.connect(nats.url, creds=nats.service_creds(name), name=name))
        return buses[-1]

    yield one
    for bus in buses:
        await bus.close()


async def serve(bus):
    echo, server = Echo(), bus.server()
    echo_pb2_grpc.add_EchoServiceServicer_to_server(echo, server)
    await server.start()
    return echo


def test_this_nats_py_has_all_the_hooks():
    assert natswire.missing_hooks() == []


async def test_the_direct_wire_is_the_choice(join):
    assert isinstance((await join("wire-a")).wire, NatsWire)


async def test_a_missing_hook_brings_the_slow_wire(join, slow, caplog):
    with caplog.at_level(logging.WARNING):
        assert isinstance((await join("wire-b")).wire, PublicWire)
    assert "_pending" in caplog.text


async def test_a_hook_that_does_nothing_brings_the_slow_wire(join, monkeypatch):
    monkeypatch.setattr(natswires, "_ANSWER_S", 0.2)
    monkeypatch.setattr(natswire._DirectClient, "deliver", lambda *_: None)
    assert isinstance((await join("wire-c")).wire, PublicWire)


async def every_kind(caller, echo):
    stub = echo_pb2_grpc.EchoServiceStub(caller.channel(default_timeout_s=SOON_S))
    size = 2 << 20
    answer = await stub.Say(echo_pb2.SayRequest(ballast=b"a" * size, answer_bytes=size))
    assert len(answer.ballast) == size
    call = stub.Say(echo_pb2.SayRequest(mode="metadata"), metadata=(("own-bin", b"\x00"),))
    await call
    assert echo.metadata["own-bin"] == b"\x00"
    assert (await call.trailing_metadata())["last-bin"] == b"\x02"
    got = [a.index async for a in stub.Repeat(echo_pb2.RepeatRequest(count=300))]
    assert got == list(range(300))
    asked = (echo_pb2.SayRequest(text=str(n)) for n in range(9))
    assert (await stub.Gather(asked)).text == "012345678"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Say(echo_pb2.SayRequest(mode="abort"))
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    hanging = stub.Say(echo_pb2.SayRequest(mode="hang"))
    echo.started.clear()
    await asyncio.wait_for(echo.started.wait(), SOON_S)
    hanging.cancel()
    await asyncio.wait_for(echo.cancelled.wait(), SOON_S)


async def test_slow_to_slow(join, slow):
    echo = await serve(await join("wire-d"))
    await every_kind(await join("wire-e"), echo)


async def test_fast_to_slow(join, monkeypatch):
    caller = await join("wire-f")
    monkeypatch.setattr(natswire, "missing_hooks", lambda: ["_pending"])
    await every_kind(caller, await serve(await join("wire-g")))


async def test_slow_to_fast(join, monkeypatch):
    echo = await serve(await join("wire-h"))
    monkeypatch.setattr(natswire, "missing_hooks", lambda: ["_pending"])
    await every_kind(await join("wire-i"), echo)


async def test_nobody_there_over_the_slow_wire(join, slow):
    channel = (await join("wire-j")).channel()
    call = channel.unary_unary("/nobody.v1.S/Here")(b"")
    assert await asyncio.wait_for(call.code(), SOON_S) is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("kind", [NatsWire, PublicWire])
async def test_a_failing_callback_is_counted(nats, kind):
    wire = await kind.connect(
        nats.url, creds=nats.service_creds("wire-k"), inbox_prefix=service_inbox("wire-k")
    )
    heard = asyncio.Event()
    wire.subscribe("gl.t.bug", lambda _delivery: 1 / 0)
    wire.subscribe("gl.t.fine", lambda _delivery: heard.set())
    wire.publish("gl.t.bug", b"")
    wire.publish("gl.t.fine", b"")
    await asyncio.wait_for(heard.wait(), SOON_S)
    assert wire.dead_letters.by_reason() == {"callback_failed": 1}
    await wire.close()
