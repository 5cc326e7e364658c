"""Real processes, real trouble: callers see statuses, never silence."""

import asyncio
import collections
import signal
import subprocess
import sys
import time
from pathlib import Path

import grpc
import pytest
from gridlease_mesh.bus import Bus
from gridlease_mesh.embedded import EmbeddedNats

from tests.integration.mesh.instance import SERVICE
from tests.integration.mesh.suite.waits import still, turn

ROOT = Path(__file__).parents[3]
OK, UNAVAILABLE = grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE


@pytest.fixture
def own_nats(state_folder):
    server = EmbeddedNats(state_folder / "nats")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def instance(own_nats):
    command = [sys.executable, "-m", "tests.integration.mesh.instance", own_nats.url]
    process = subprocess.Popen(
        [*command, str(own_nats.service_creds("chaos")), "chaos"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout.readline().strip()
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.fixture
async def bus(own_nats, instance):
    creds = own_nats.service_creds("caller")
    async with await Bus.connect(own_nats.url, creds=creds, name="caller") as joined:
        yield joined


class Load:
    """About ``rate`` calls a second, each with its status and how long it took."""

    def __init__(self, channel, rate):
        self._call = channel.unary_unary(f"/{SERVICE}/Echo")
        self._rate = rate
        self._running = set()
        self.codes = collections.Counter()
        self.longest_s = 0.0

    async def _one(self):
        start = time.monotonic()
        self.codes[await self._call(b"x", timeout=5).code()] += 1
        self.longest_s = max(self.longest_s, time.monotonic() - start)

    async def run(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for _ in range(self._rate // 100):
                task = asyncio.create_task(self._one())
                self._running.add(task)
                task.add_done_callback(self._running.discard)
            await turn(0.01)
        if self._running:
            _, hanging = await asyncio.wait(self._running, timeout=6)
            assert not hanging


async def restart(nats, bus, channel, seconds, rate):
    """Restart the broker in the middle of a load and of two streams."""
    load = Load(channel, rate)
    answers = channel.unary_stream(f"/{SERVICE}/Stream")(b"once", timeout=30)
    chat = channel.stream_stream(f"/{SERVICE}/Chat")(timeout=30)
    assert await answers.read() == b"0"
    await chat.write(b"a")
    assert await chat.read() == b"a"
    running = asyncio.create_task(load.run(seconds))
    await still(running, seconds / 3)
    await asyncio.to_thread(nats.kill)
    for stream in (answers, chat):
        assert await asyncio.wait_for(stream.code(), 5) is UNAVAILABLE
    await asyncio.to_thread(nats.start)
    await running
    assert set(load.codes) == {OK, UNAVAILABLE}
    assert load.longest_s < 5
    echo = channel.unary_unary(f"/{SERVICE}/Echo")
    assert await echo(b"after", timeout=10, wait_for_ready=True) == b"after"
    return load.codes


async def test_the_broker_restarts_under_load(own_nats, bus):
    codes = await restart(own_nats, bus, bus.channel(), 3.0, 500)
    assert codes[OK] > 300


@pytest.mark.slow
async def test_the_broker_restarts_again_and_again_under_load(own_nats, bus):
    for _ in range(10):
        codes = await restart(own_nats, bus, bus.channel(), 6.0, 1000)
        assert codes[OK] > 1000


async def test_idempotent_calls_survive_a_restart(own_nats, bus):
    """Those that wait for a server and may be made again see nothing of it."""
    channel = bus.channel(idempotent=[f"/{SERVICE}/Echo"])
    echo = channel.unary_unary(f"/{SERVICE}/Echo")
    await asyncio.to_thread(own_nats.kill)
    waiting = [echo(b"%d" % n, timeout=20, wait_for_ready=True) for n in range(50)]
    await asyncio.to_thread(own_nats.start)
    assert await asyncio.gather(*waiting) == [b"%d" % n for n in range(50)]


async def test_a_stopped_server_holds_its_callers_back_and_goes_on(bus, instance):
    """A slow consumer: credits keep the broker's buffers small, so nobody is cut off."""
    sent = 0

    async def much():
        nonlocal sent
        for _ in range(2000):
            yield b"a" * 50_000
            sent += 1

    call = bus.channel().stream_unary(f"/{SERVICE}/Gather")(much(), timeout=30)
    await call.wait_for_connection()
    instance.send_signal(signal.SIGSTOP)
    await asyncio.wait([asyncio.create_task(call.code())], timeout=1.0)
    held = sent
    assert held < 2000
    instance.send_signal(signal.SIGCONT)
    assert await call == b"100000000"


async def test_a_slow_reader_among_fast_ones(bus):
    """One reader that does not read delays nobody else on its connection."""
    channel = bus.channel()
    slow = channel.unary_stream(f"/{SERVICE}/Stream")(b"", timeout=30)
    assert await slow.read() == b"0"
    echo = channel.unary_unary(f"/{SERVICE}/Echo")
    start = time.monotonic()
    for _ in range(100):
        await echo(b"x")
    assert time.monotonic() - start < 5
    assert [await slow.read() for _ in range(500)] == [b"%d" % n for n in range(1, 501)]
    slow.cancel()
