"""Who is there, who has a call, and what callers see when an instance is killed."""

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from gridlease_mesh import micro
from gridlease_mesh.bus import Bus

from tests.integration.mesh.instance import HANDLERS, SERVICE

ROOT = Path(__file__).parents[3]
SOON_S = 5.0
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


class Instance:
    """A server process."""

    def __init__(self, nats, name):
        command = [sys.executable, "-m", "tests.integration.mesh.instance"]
        self.process = subprocess.Popen(
            [*command, nats.url, str(nats.service_creds(name)), name],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        self.id = self.process.stdout.readline().strip()
        assert self.id

    def kill(self, number=signal.SIGKILL):
        self.process.send_signal(number)

    def end(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture
async def start(nats):
    """Call it with a name: a server process, gone after the test."""
    running = []

    async def one(name):
        running.append(await asyncio.to_thread(Instance, nats, name))
        return running[-1]

    yield one
    for each in running:
        each.end()


@pytest.fixture
async def caller(nats):
    async with await Bus.connect(
        nats.url, creds=nats.service_creds("caller"), name="caller"
    ) as bus:
        yield bus


def calls(channel):
    """One long call of each kind."""
    return [
        channel.unary_unary(f"/{SERVICE}/Hang")(b""),
        channel.unary_stream(f"/{SERVICE}/Stream")(b"once"),
        channel.stream_unary(f"/{SERVICE}/Gather")(),
        channel.stream_stream(f"/{SERVICE}/Chat")(),
    ]


async def ended(call):
    start = asyncio.get_running_loop().time()
    code = await asyncio.wait_for(call.code(), SOON_S)
    return code, asyncio.get_running_loop().time() - start


async def test_a_killed_instance_ends_its_calls(start, caller):
    instance = await start("dies-a")
    running = calls(caller.channel(default_timeout_s=30))
    for call in running:
        await asyncio.wait_for(call.wait_for_connection(), SOON_S)
    instance.kill()
    endings = await asyncio.gather(*map(ended, running))
    assert {code for code, _ in endings} == {UNAVAILABLE}
    assert max(after_s for _, after_s in endings) < 2


async def test_killed_at_once_while_another_lives(start, caller):
    first, second = await start("dies-b"), await start("dies-b")
    channel = caller.channel(default_timeout_s=30)
    running = [channel.unary_unary(f"/{SERVICE}/Hang")(b"") for _ in range(40)]
    await caller.flush()
    first.kill()
    endings = [asyncio.create_task(ended(call)) for call in running]
    done, alive = await asyncio.wait(endings, timeout=2.0)
    assert {task.result()[0] for task in done} == {UNAVAILABLE}
    assert 5 < len(done) < 35  # the half that the dead one had
    second.kill()
    endings = await asyncio.gather(*alive)
    assert {code for code, _ in endings} == {UNAVAILABLE}


async def test_a_busy_instance_is_not_a_dead_one(start, caller):
    instance = await start("stops")
    call = caller.channel(default_timeout_s=30).unary_unary(f"/{SERVICE}/Hang")(b"")
    await asyncio.wait_for(call.wait_for_connection(), SOON_S)
    instance.kill(signal.SIGSTOP)
    done, _ = await asyncio.wait([asyncio.create_task(call.code())], timeout=2.5)
    assert not done
    instance.kill(signal.SIGCONT)
    call.cancel()


async def test_small_calls_cost_no_message_more(start, caller):
    await start("quick")
    sent = []
    publish = caller.wire.publish

    def count(subject, payload, **options):
        sent.append(subject)
        publish(subject, payload, **options)

    caller.wire.publish = count
    echo = caller.channel().unary_unary(f"/{SERVICE}/Echo")
    for _ in range(50):
        await echo(b"x")
    assert len(sent) == 50


async def test_a_call_of_a_killed_caller_is_cancelled(nats):
    code = (
        "import asyncio, sys, pathlib\nfrom gridlease_mesh.bus import Bus\n"
        "async def main():\n"
        "    bus = await Bus.connect(sys.argv[1], creds=pathlib.Path(sys.argv[2]), name='doomed')\n"
        "    await bus.channel(default_timeout_s=60).unary_unary(sys.argv[3])(b'')\n"
        "asyncio.run(main())\n"
    )
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def hang(request, context):
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with await Bus.connect(
        nats.url, creds=nats.service_creds("mourns"), name="mourns"
    ) as bus:
        bus._keepalive_s = 0.2
        server = bus.server()
        handlers = {"Hang": grpc.unary_unary_rpc_method_handler(hang)}
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("t.Doomed", handlers),)
        )
        await server.start()
        creds = str(nats.service_creds("doomed"))
        command = [sys.executable, "-c", code, nats.url, creds, "/t.Doomed/Hang"]
        doomed = await asyncio.to_thread(subprocess.Popen, command)
        await asyncio.wait_for(started.wait(), SOON_S)
        doomed.kill()
        doomed.wait()
        await asyncio.wait_for(cancelled.wait(), SOON_S)
        await server.stop(None)


async def test_one_instance_past_the_queue_group(start, caller):
    ids = {(await start("several")).id for _ in range(2)}
    found = await caller.instances("several")
    assert set(found) == ids
    for instance in found:
        channel = caller.channel(instance=instance)
        assert await channel.unary_unary(f"/{SERVICE}/Echo")(b"x") == b"x"
        answers = channel.unary_stream(f"/{SERVICE}/Stream")(b"once")
        assert await answers.read() == b"0"
        assert answers.instance.endswith(instance)
    gone = caller.channel(instance="0" * 16)
    assert await gone.unary_unary(f"/{SERVICE}/Echo")(b"x").code() is UNAVAILABLE


async def ask(bus, verb, name):
    inbox = f"{bus._own_inbox()}.{verb}.{name}"
    return await micro.discover(bus.wire, name, inbox=inbox, verb=verb)


async def test_adr_32(start, caller):
    instance = await start("micro")
    echo = caller.channel(instance=instance.id).unary_unary(f"/{SERVICE}/Echo")
    assert await echo(b"x") == b"x"
    (ping,) = await ask(caller, "PING", "micro")
    (info,) = await ask(caller, "INFO", "micro")
    (stats,) = await ask(caller, "STATS", "micro")
    for verb, answer in (("ping", ping), ("info", info), ("stats", stats)):
        assert answer["type"] == f"io.nats.micro.v1.{verb}_response"
        assert (answer["name"], answer["id"], answer["version"]) == ("micro", instance.id, "0.1.0")
    endpoints = {each["name"]: each for each in info["endpoints"]}
    assert len(endpoints) == len(HANDLERS)
    chat = endpoints["gridlease_suite_v1_Instance-Chat"]
    assert chat["metadata"] == {"arity": "bidi"}
    assert chat["subject"] == f"gl.any.{SERVICE}.Chat"
    counted = {each["name"]: each for each in stats["endpoints"]}
    served = counted["gridlease_suite_v1_Instance-Echo"]
    assert (served["num_requests"], served["num_errors"]) == (1, 0)
    assert served["processing_time"] > 0
    assert stats["started"].endswith("Z")
    json.dumps(stats)


async def test_nobody_of_that_name(caller):
    assert await caller.instances("nobody-at-all") == []
