"""Random bytes on every subject: nothing crashes, nothing hangs, what is dead is counted."""

import asyncio
import logging

import grpc
import pytest
from gridlease_mesh import frames, subjects
from gridlease_mesh.bus import Bus
from gridlease_mesh.frames import Frame, FrameType
from gridlease_mesh.loopback import LoopbackBroker
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

SERVICE = "t.v1.Fuzz"
SOON_S = 5.0

KEYS = st.sampled_from(
    [
        *("grpc-timeout", "grpc-status", "grpc-message", "grpc-status-details-bin", "traceparent"),
        *("gl-framed", "gl-window", "gl-encoding", "gl-accept", "gl-initial-x", "x", "x-bin"),
    ]
)
VALUES = st.sampled_from(["", "1", "0", "5S", "64,1048576", "zlib", "-1", "99", "%ff", "AA=="]) | (
    st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=20)
)
BLOCKS = (
    st.just(b"")
    | st.binary(max_size=60)
    | st.lists(st.tuples(KEYS, VALUES), max_size=5).map(frames.encode_headers)
    | st.sampled_from(
        [b"NATS/1.0 503\r\n\r\n", b"NATS/1.0 100 x\r\na:b\r\n\r\n", b"NATS/1.0\r\n\r\n"]
    )
)
FRAMES = st.builds(
    Frame, st.sampled_from(FrameType), st.integers(0, 7), st.integers(0, 3), st.binary(max_size=40)
).map(frames.encode_frame)
PAYLOADS = st.binary(max_size=80) | FRAMES | st.sampled_from([b"1 2|3", b"|", b"1", b"\xff|\xff"])


class Place:
    """A server and a channel in the middle of calls, and every subject they hear."""

    def __init__(self):
        self.broker = LoopbackBroker()
        self.server_bus = Bus(self.broker.wire(), name="server")
        self.bus = Bus(self.broker.wire(), name="caller")
        self.outsider = self.broker.wire()
        self.server = self.server_bus.server(up=[SERVICE])
        handlers = {
            "Echo": grpc.unary_unary_rpc_method_handler(self.echo),
            "Count": grpc.unary_stream_rpc_method_handler(self.count),
            "Join": grpc.stream_unary_rpc_method_handler(self.join),
            "Chat": grpc.stream_stream_rpc_method_handler(self.chat),
        }
        self.server.add_registered_method_handlers(SERVICE, handlers)
        self.names = list(handlers)
        self.channel = self.bus.channel(default_timeout_s=SOON_S)

    async def echo(self, request, context):
        return request

    async def count(self, request, context):
        for index in range(3):
            yield b"%d" % index

    async def join(self, requests, context):
        return b",".join([request async for request in requests])

    async def chat(self, requests, context):
        async for request in requests:
            yield request

    def heard(self, running):
        roots = ["gl.any", "gl.up.n-1", f"gl.one.{self.server.instance}"]
        found = []
        for root in roots:
            found += [f"{root}.{SERVICE}.{name}" for name in (*self.names, "Other")]
            found += [f"{root}._cancel", f"{root}._who.{SERVICE}"]
            call = f"{root}._call.{self.server.instance}"
            found += [f"{call}.{token}" for token in (1, 2, 3, 99, "who", "w1")]
        found += [f"{self.channel.inbox}.{token}" for token in ("1", "2", "99", "w0", "w1", "x")]
        found += [call.reply for call in running]
        found += [f"$SRV.{verb}.server" for verb in ("PING", "INFO", "STATS")]
        return found

    async def close(self):
        await self.bus.close()
        await self.server.stop(None)
        await self.server_bus.close()


@pytest.fixture(autouse=True)
def quiet():
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


async def attack(shots):
    place = Place()
    await place.server.start()
    channel = place.channel
    running = [
        channel.unary_unary(f"/{SERVICE}/Echo")(b"x"),
        channel.unary_stream(f"/{SERVICE}/Count")(b""),
        channel.stream_unary(f"/{SERVICE}/Join")(),
        channel.stream_stream(f"/{SERVICE}/Chat")(),
    ]
    for index, reply, block, payload in shots:
        heard = place.heard(running)
        replies = ["", f"{subjects.node_inbox('n-1')}.x.1", "x.y", running[1].reply]
        place.outsider.publish(
            heard[index % len(heard)], payload, reply=replies[reply], headers=block
        )
        if index % 3 == 0:
            await asyncio.sleep(0)
    for call in running[2:]:
        call.cancel()
    await asyncio.wait_for(asyncio.gather(*(call.code() for call in running)), SOON_S)
    again = channel.unary_unary(f"/{SERVICE}/Echo")
    assert await asyncio.wait_for(again(b"still here"), SOON_S) == b"still here"
    for bus in (place.bus, place.server_bus):
        assert bus.dead_letters.by_reason().get("callback_failed", 0) == 0
    counted = place.bus.dead_letters.total + place.server_bus.dead_letters.total
    await place.close()
    return counted


SHOTS = st.lists(
    st.tuples(st.integers(0, 10_000), st.integers(0, 3), BLOCKS, PAYLOADS), max_size=30
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(SHOTS)
def test_random_bytes_everywhere(shots):
    asyncio.run(attack(shots))


@pytest.mark.slow
@settings(max_examples=3000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(SHOTS)
def test_random_bytes_everywhere_for_long(shots):
    asyncio.run(attack(shots))


def test_each_dead_letter_is_counted():
    async def count():
        place = Place()
        await place.server.start()
        send = place.outsider.publish
        inbox, instance = place.channel.inbox, place.server.instance
        send(f"gl.any.{SERVICE}.Echo", b"x")
        send(f"gl.any.{SERVICE}.Echo", b"x", reply="r", headers=b"garbage")
        send(f"gl.up.n-1.{SERVICE}.Echo", b"x", reply="elsewhere.1")
        send(f"gl.any._call.{instance}.77", b"x")
        send(f"{inbox}.77", b"x")
        send(f"{inbox}.w77", b"x")
        await place.bus.flush()
        await place.bus.flush()
        found = place.server_bus.dead_letters.by_reason(), place.bus.dead_letters.by_reason()
        await place.close()
        return found

    served, called = asyncio.run(count())
    assert served == {"no_reply": 1, "malformed": 1, "foreign_reply": 1, "unknown_call": 1}
    assert called == {"unknown_call": 1, "malformed": 1}
