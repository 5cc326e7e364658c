"""Who may call whom, and as whom: on a real broker with real credentials."""

import asyncio
import json
from pathlib import Path

import grpc
import pytest
from gridlease_kernel.faults import Unauthenticated
from gridlease_mesh import credentials, events, subjects
from gridlease_mesh.bus import Bus
from gridlease_mesh.wire import Delivery, Listener

from tests.integration.mesh.echo import echo_pb2, echo_pb2_grpc
from tests.integration.mesh.servicer import Echo

SOON_S = 5.0
SERVICE = "gridlease.meshtest.v1.EchoService"


async def soon(awaitable):
    return await asyncio.wait_for(awaitable, SOON_S)


def node_creds(nats, folder: Path, node_id: str, ttl_s: int = 3600) -> Path:
    seed, public = credentials.new_user_key()
    path = folder / f"{node_id}.creds"
    credentials.write_creds(path, nats.authority.mint_node_user(node_id, public, ttl_s), seed)
    return path


class Refusals(Listener):
    def __init__(self):
        self.subjects: asyncio.Queue[str] = asyncio.Queue()

    def refused(self, subject):
        self.subjects.put_nowait(subject)


@pytest.fixture
async def join(nats, tmp_path):
    """Call it with a name, or a node's id: its Bus, closed after the test."""
    buses = []

    async def start(name=None, node_id=None):
        creds = node_creds(nats, tmp_path, node_id) if node_id else nats.service_creds(name)
        buses.append(
            await Bus.connect(nats.url, creds=creds, name=name or "agent", node_id=node_id)
        )
        return buses[-1]

    yield start
    for bus in buses:
        await bus.close()


async def serve(bus, **options):
    echo = Echo()
    server = bus.server(**options)
    echo_pb2_grpc.add_EchoServiceServicer_to_server(echo, server)
    await server.start()
    return echo, server


def stub(bus, target="any"):
    return echo_pb2_grpc.EchoServiceStub(bus.channel(target, default_timeout_s=SOON_S))


async def test_a_service_knows_which_node_calls(join):
    service = await join("svc-a")
    await serve(service, up=[SERVICE])
    for node_id in ("n-1", "n-2"):
        node = await join(node_id=node_id)
        metadata = (("node", "n-9"), ("x-gl-node", "n-9"))
        answer = await stub(node).Say(echo_pb2.SayRequest(text="up"), metadata=metadata)
        assert (answer.text, answer.node) == ("up", node_id)
    assert (await stub(service).Say(echo_pb2.SayRequest(text="x"))).node == ""


async def test_a_nodes_streams_and_large_messages(join):
    await serve(await join("svc-b"), up=[SERVICE])
    caller = stub(await join(node_id="n-3"))
    size = 2 << 20
    answer = await caller.Say(echo_pb2.SayRequest(ballast=b"a" * size, answer_bytes=size))
    assert len(answer.ballast) == size
    got = [a.index async for a in caller.Repeat(echo_pb2.RepeatRequest(count=500))]
    assert got == list(range(500))


async def test_a_nodes_cancel_reaches_the_servicer(join):
    echo, _ = await serve(await join("svc-c"), up=[SERVICE])
    call = stub(await join(node_id="n-4")).Say(echo_pb2.SayRequest(mode="hang"))
    await soon(echo.started.wait())
    call.cancel()
    await soon(echo.cancelled.wait())


async def test_services_not_named_are_closed_to_nodes(join):
    await serve(await join("svc-d"))
    call = stub(await join(node_id="n-5")).Say(echo_pb2.SayRequest())
    assert await call.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_service_calls_one_nodes_own_services(join):
    for node_id in ("n-6", "n-7"):
        await serve(await join(node_id=node_id))
    service = await join("svc-e")
    caller = stub(service, "n-7")
    size = 2 << 20
    answer = await caller.Say(
        echo_pb2.SayRequest(text="down", answer_bytes=size, ballast=b"a" * size)
    )
    assert (answer.text, len(answer.ballast)) == ("down", size)
    got = [a.index async for a in caller.Repeat(echo_pb2.RepeatRequest(count=500))]
    assert got == list(range(500))
    gone = stub(service, "n-nowhere").Say(echo_pb2.SayRequest())
    assert await gone.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(
    "subject",
    [
        f"gl.up.n-other.{SERVICE}.Say",
        f"gl.any.{SERVICE}.Say",
        f"gl.node.n-other.{SERVICE}.Say",
        f"gl.node.n-8.{SERVICE}.Say",
        "gl.hint.n-other",
        "gl.back.n-other.token.1",
        "gl.tel.n-other.x",
        "gl.events.x",
        "_INBOX.node.n-other.token.1",
        "_INBOX.svc.gateway.token.1",
        "$JS.API.INFO",
        "$SYS.REQ.SERVER.PING",
    ],
)
async def test_a_node_may_not_publish_elsewhere(join, subject):
    node = await join(node_id="n-8")
    refusals = Refusals()
    node.wire.add_listener(refusals)
    node.wire.publish(subject, b"", reply="_INBOX.node.n-8.x.1")
    assert await soon(refusals.subjects.get()) == subject.lower()


@pytest.mark.parametrize(
    "subject",
    [
        ">",
        "_INBOX.node.n-other.>",
        "_INBOX.node.*.>",
        "gl.>",
        "gl.up.*.>",
        "gl.hint.*",
        "gl.node.n-other.>",
    ],
)
async def test_a_node_hears_nothing_of_others(join, subject):
    service = await join("svc-f")
    node = await join(node_id="n-9")
    heard: list[Delivery] = []
    node.wire.subscribe(subject, heard.append)
    await node.flush()
    targets = ("_INBOX.node.n-other.t.1", "gl.up.n-other.x", "gl.hint.n-other", "gl.node.n-other.x")
    for target in targets:
        service.wire.publish(target, b"private")
    own = asyncio.Event()
    node.wire.subscribe("gl.hint.n-9", lambda _delivery: own.set())
    await node.flush()
    service.wire.publish("gl.hint.n-9", b"last")
    await soon(own.wait())  # all that went before has arrived, if it was let through
    assert [d for d in heard if d.payload == b"private"] == []


async def test_a_refused_call_fails_at_once_as_forbidden(join, nats):
    node = await join(node_id="n-10")
    node.node_id = "n-other"  # a node that lies about itself
    channel = node.channel()
    call = echo_pb2_grpc.EchoServiceStub(channel).Say(echo_pb2.SayRequest(), timeout=SOON_S)
    assert await call.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_a_server_is_no_nodes_deputy(join):
    await serve(await join("svc-g"), up=[SERVICE])
    node = await join(node_id="n-11")
    victim = await join(node_id="n-12")
    heard = []
    victim.wire.subscribe("_INBOX.node.n-12.>", heard.append)
    await victim.flush()
    subject = subjects.method_subject("gl.up.n-11", f"/{SERVICE}/Say")
    node.wire.publish(subject, b"", reply="_INBOX.node.n-12.token.1")
    answer = await stub(node).Say(echo_pb2.SayRequest(text="after"))  # same path, after it
    assert answer.text == "after"
    await victim.flush()
    assert heard == []


async def test_one_node_cannot_take_all_places(join):
    echo, _ = await serve(await join("svc-k"), up=[SERVICE], max_per_node=2)
    greedy, modest = stub(await join(node_id="n-16")), stub(await join(node_id="n-17"))
    kept = [greedy.Say(echo_pb2.SayRequest(mode="wait")) for _ in range(2)]
    refused = greedy.Say(echo_pb2.SayRequest())
    assert await refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (await modest.Say(echo_pb2.SayRequest(text="x"))).text == "x"
    echo.release.set()
    await asyncio.gather(*kept)
    assert (await greedy.Say(echo_pb2.SayRequest(text="y"))).text == "y"


async def test_services_may_use_jetstream(join):
    service = await join("svc-l")
    answers: asyncio.Queue[Delivery] = asyncio.Queue()
    service.wire.subscribe("_INBOX.svc.svc-l.js", answers.put_nowait)
    service.wire.publish("$JS.API.INFO", b"", reply="_INBOX.svc.svc-l.js")
    assert "error" not in json.loads((await soon(answers.get())).payload)


async def test_hints_reach_their_node_alone(join):
    service = await join("svc-h")
    got: dict[str, list[int]] = {"n-13": [], "n-14": []}
    arrived = asyncio.Event()
    for node_id, seen in got.items():
        node = await join(node_id=node_id)

        def note(generation, seen=seen):
            seen.append(generation)
            arrived.set()

        events.on_hint(node, note)
        await node.flush()
    events.send_hint(service, "n-14", 7)
    await soon(arrived.wait())
    assert got == {"n-13": [], "n-14": [7]}


async def test_events_fan_out(join):
    sender, hearer = await join("svc-i"), await join("svc-j")
    got: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()
    events.on_event(hearer, "job.>", lambda topic, payload: got.put_nowait((topic, payload)))
    await hearer.flush()
    sender.publish("events.job.j-1.done", b"body")
    assert await soon(got.get()) == ("job.j-1.done", b"body")


async def test_credentials_of_another_installation_are_refused(nats, tmp_path):
    authority = credentials.Authority(tmp_path / "keys")
    creds = authority.mint_service_user("gateway")
    with pytest.raises(Unauthenticated) as caught:
        await Bus.connect(nats.url, creds=creds, name="gateway", timeout_s=0.7)
    assert caught.value.reason == "NATS_REFUSED"


async def test_no_credentials_are_refused(nats):
    with pytest.raises(Unauthenticated):
        await Bus.connect(nats.url, name="gateway", timeout_s=0.7)


async def test_an_expired_node_comes_back_with_a_renewed_token(nats, tmp_path):
    path = node_creds(nats, tmp_path, "n-15", ttl_s=1)
    node = await Bus.connect(nats.url, creds=path, name="agent", node_id="n-15")
    lost, back = asyncio.Event(), asyncio.Event()
    node.on_disconnected(lost.set)
    node.on_connected(back.set)
    await soon(lost.wait())
    node_creds(nats, tmp_path, "n-15")
    await soon(back.wait())
    await node.flush()
    await node.close()
