"""docs/mesh.md tells the truth: its bytes and its conversations are made again and compared."""

import asyncio
import re
from pathlib import Path

import grpc
import pytest
from gridlease_mesh import channel as channel_module
from gridlease_mesh import flow, frames
from gridlease_mesh import server as server_module
from gridlease_mesh.bus import Bus
from gridlease_mesh.frames import Frame, FrameType, Grant, Holding
from gridlease_mesh.loopback import LoopbackBroker

PAGE = (Path(__file__).parents[3] / "docs" / "mesh.md").read_text()
GOLDEN = {
    "ACCEPT": Frame(FrameType.ACCEPT, 1, 0, frames.encode_grant(Grant(64, 1 << 20))),
    "INITIAL": Frame(FrameType.INITIAL, 0, 1, frames.encode_headers([("a", "b")])),
    "DATA": Frame(FrameType.DATA, 0, 2, b"hi"),
    "DATA, goes on": Frame(FrameType.DATA, frames.MORE, 3, b"hi"),
    "HALF_CLOSE": Frame(FrameType.HALF_CLOSE, 0, 4, b""),
    "TRAILERS": Frame(FrameType.TRAILERS, 0, 5, frames.encode_headers([("grpc-status", "0")])),
    "WINDOW": Frame(FrameType.WINDOW, 0, 6, frames.encode_grant(Grant(32, 4096))),
    "CANCEL": Frame(FrameType.CANCEL, 0, 7, b""),
    "KEEPALIVE": Frame(FrameType.KEEPALIVE, 0, 7, b""),
}


def test_the_frames_of_the_page():
    rows = re.findall(
        r"^\| (\d) \| ([A-Z_]+(?:, goes on)?) \|.*\| `([0-9a-f ]+)` \|$", PAGE, re.MULTILINE
    )
    told = {name: (int(kind), bytes.fromhex(text)) for kind, name, text in rows}
    assert told == {
        name: (int(frame.type), frames.encode_frame(frame)) for name, frame in GOLDEN.items()
    }


@pytest.mark.parametrize(
    ("told", "is_so"),
    [
        ("64 messages and 1,048,576 bytes", flow.DEFAULT_WINDOW == (64, 1 << 20)),
        ("4,194,304 bytes", flow.MAX_MESSAGE_BYTES == 4 << 20),
        ("1,024 bytes of headroom", flow.HEADROOM_BYTES == 1024),
        ("`1 2|3`", frames.encode_holding(Holding(("1", "2"), ("3",))) == b"1 2|3"),
        ("`1 2 3`", frames.encode_asked(["1", "2", "3"]) == b"1 2 3"),
    ],
)
def test_the_numbers_of_the_page(told, is_so):
    assert told in PAGE
    assert is_so


def show(delivery):
    """A message as the page shows it."""
    reply = f" (reply {delivery.reply})" if delivery.reply else ""
    lines = [f"{delivery.subject}{reply}"]
    lines += [f"    {line}" for line in delivery.headers.decode().split("\r\n") if line]
    if delivery.payload:
        lines.append(f"    {delivery.payload.hex(' ')}")
    return "\n".join(lines)


async def greet(request, context):
    if request == b"who":
        await context.abort(grpc.StatusCode.NOT_FOUND, "no such name")
    return b"hello " + request


async def chat(requests, context):
    async for request in requests:
        yield request.upper()


@pytest.fixture
async def conversation(monkeypatch):
    """A channel on a broker that writes down all it passes, with tokens that repeat."""
    monkeypatch.setattr(channel_module.secrets, "token_hex", lambda _n: "c0ffee")
    said = []
    broker = LoopbackBroker()
    server_bus, bus = Bus(broker.wire(), name="greeter"), Bus(broker.wire(), name="caller")
    monkeypatch.setattr(server_module.secrets, "token_hex", lambda _n: "5e44e4")
    server = server_bus.server()
    monkeypatch.setattr(channel_module.secrets, "token_hex", lambda _n: "c0ffee")
    handlers = {
        "Greet": grpc.unary_unary_rpc_method_handler(greet),
        "Chat": grpc.stream_stream_rpc_method_handler(chat),
    }
    server.add_registered_method_handlers("demo.v1.Greeter", handlers)
    await server.start()
    broker.tap = lambda delivery: (said.append(show(delivery)), (delivery,))[1]
    yield bus.channel(), said
    await bus.close()
    await server.stop(None)


def told(title):
    found = re.search(rf"^### {title}\n.*?```text\n(.*?)```", PAGE, re.MULTILINE | re.DOTALL)
    assert found, title
    return found[1].rstrip("\n")


async def test_the_unary_calls_of_the_page(conversation):
    channel, said = conversation
    call = channel.unary_unary("/demo.v1.Greeter/Greet")
    assert await call(b"you", timeout=5) == b"hello you"
    assert "\n".join(said) == told("A unary call")
    said.clear()
    failed = call(b"who", timeout=5, metadata=(("tenant", "t-1"),))
    assert await failed.code() is grpc.StatusCode.NOT_FOUND
    assert "\n".join(said) == told("A unary call that fails")


async def test_the_stream_of_the_page(conversation):
    channel, said = conversation
    call = channel.stream_stream("/demo.v1.Greeter/Chat")(timeout=5)
    await call.write(b"hi")
    assert await call.read() == b"HI"
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert "\n".join(said) == told("A stream both ways")


async def test_the_question_of_the_page(conversation):
    channel, said = conversation
    call = channel.unary_unary("/demo.v1.Greeter/Greet")(b"you", timeout=5)
    channel.ask_about(call)
    await call
    await asyncio.sleep(0)
    assert said[1] == told("Who has this call\\?").partition("\n\n")[0]
