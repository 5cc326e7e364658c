"""Whatever is sent, and whatever the broker does to it, comes whole and in order, or ends."""

import asyncio
import contextlib
import random

import grpc
from gridlease_mesh import flow, frames
from gridlease_mesh.bus import Bus
from gridlease_mesh.frames import Frame, FrameType, Grant, Holding
from gridlease_mesh.loopback import LoopbackBroker
from hypothesis import given, settings
from hypothesis import strategies as st

ROOM = flow.HEADROOM_BYTES + 64
TOKENS = st.lists(st.from_regex(r"[0-9a-z]{1,8}", fullmatch=True), max_size=20).map(tuple)
MESSAGES = st.lists(
    st.binary(max_size=300) | st.integers(1024, 3000).map(lambda n: b"ab" * n), max_size=8
)


@given(MESSAGES, st.booleans())
def test_messages_survive_cutting_and_squeezing(messages, squeezing):
    out, inbound = flow.Outbound(ROOM), flow.Inbound()
    got = []
    for message in messages:
        for raw in out.message(message, squeezing=squeezing):
            frame = frames.decode_frame(raw)
            inbound.check(frame)
            whole = inbound.message(frame)
            if whole is not None:
                got.append(whole)
    assert got == messages


@given(st.binary(max_size=2000))
def test_unsqueeze_takes_anything(data):
    with contextlib.suppress(frames.BadFrame, flow.TooBig):
        flow.unsqueeze(data, 1000)


@given(TOKENS, TOKENS)
def test_holdings_round_trip(mine, others):
    assert frames.decode_holding(frames.encode_holding(Holding(mine, others))) == (mine, others)
    assert frames.decode_asked(frames.encode_asked(mine)) == mine


@given(st.lists(st.integers(0, 200_000), min_size=1, max_size=300), st.data())
def test_a_sender_that_minds_its_credits_never_overflows_the_mailbox(sizes, data):
    window = Grant(8, 100_000)
    credit, mailbox = flow.Credits(window), flow.Mailbox(window)
    for size in sizes:
        while not credit.open or (len(mailbox) and data.draw(st.booleans())):
            _, grant = mailbox.take()
            if grant is not None:
                credit.add(grant)
        credit.take(size)
        mailbox.put(bytes(size))


@given(st.integers(2, 400))
def test_a_sender_that_does_not_is_stopped(count):
    mailbox, refused = flow.Mailbox(Grant(8, 1000)), False
    try:
        for _ in range(count):
            mailbox.put(b"x")
    except flow.TooBig:
        refused = True
    assert refused == (count > 16)


async def _through(seed, drop, double, swap, count):
    """A stream each way through a broker that loses, doubles and swaps: what came, and the end."""
    dice, broker, held = random.Random(seed), LoopbackBroker(), []

    def tap(delivery):
        passed = [] if dice.random() < drop else [delivery]
        if passed and dice.random() < double:
            passed.append(delivery)
        if passed and dice.random() < swap:
            held.extend(passed)
            return []
        passed.extend(held)
        held.clear()
        return passed

    server_bus = Bus(broker.wire(), name="s", keepalive_s=0.1)
    bus = Bus(broker.wire(), name="c", keepalive_s=0.1)

    async def echo(requests, context):
        async for request in requests:
            yield request

    server = server_bus.server()
    handlers = {"Chat": grpc.stream_stream_rpc_method_handler(echo)}
    server.add_registered_method_handlers("t.S", handlers)
    await server.start()
    broker.tap = tap
    channel = bus.channel(default_timeout_s=2)
    call = channel.stream_stream("/t.S/Chat")(b"%d" % n for n in range(count))
    got = []
    try:
        while (message := await call.read()) is not grpc.aio.EOF:
            got.append(int(message))
    except (grpc.aio.AioRpcError, asyncio.CancelledError):
        pass
    code = await asyncio.wait_for(call.code(), 4)
    broker.tap = None
    await bus.close()
    await server.stop(None)
    await server_bus.close()
    return got, code


RATES = st.sampled_from([0.0, 0.01, 0.1])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), RATES, RATES, RATES, st.integers(0, 150))
def test_a_stream_is_whole_or_says_so(seed, drop, double, swap, count):
    got, code = asyncio.run(_through(seed, drop, double, swap, count))
    assert got == list(range(len(got)))  # never a hole, never twice, never out of order
    if code is grpc.StatusCode.OK:
        assert len(got) == count
    if not (drop or double or swap):
        assert code is grpc.StatusCode.OK


@given(st.sampled_from(FrameType), st.integers(0, 255), st.integers(0, 2**32 - 1), st.binary())
def test_frames_keep_their_order_across_the_wrap(kind, flags, sequence, body):
    inbound = flow.Inbound()
    inbound._next = sequence
    inbound.check(Frame(kind, flags, sequence, body))
    advanced = kind not in frames.UNORDERED
    assert inbound._next == (sequence + advanced) % 2**32
