"""Thousands of agents in one process: ``… telemetry_fleet URL KEYS``, each with its connection."""

import asyncio
import contextlib
import json
import random
import sys
import time
import urllib.parse
from pathlib import Path

from gridlease_mesh.bus import Bus
from gridlease_mesh.telemetry import TelemetrySender

from tests.bench import children
from tests.bench.bare_wire import BareWire
from tests.unit.telemetry.busy import busy

_AT_ONCE = 50
_KINDS = 16  # different courses of readings, shared among the agents
_COURSE = 64  # seconds of each


class Agent:
    """One node: it offers a sample each second, at its own moment of the second."""

    def __init__(self, bus, course, phase_s):
        self.sender = TelemetrySender(bus)
        self.bus = bus
        self._course = course
        self._phase_s = phase_s
        self._timer = None
        self.offered = 0

    def start(self, at):
        self._timer = asyncio.get_running_loop().call_at(at + self._phase_s, self._tick)

    def stop(self):
        self._timer.cancel()

    def _tick(self):
        self._timer = asyncio.get_running_loop().call_at(self._timer.when() + 1.0, self._tick)
        self.sender.offer(self._course[self.offered % _COURSE])
        self.offered += 1


async def join(url, keys, courses):
    """Every node's connection, some at a time."""
    place = urllib.parse.urlsplit(url)
    gate = asyncio.Semaphore(_AT_ONCE)
    chance = random.Random(1)

    async def one(index, node, token, seed):
        async with gate:
            wire = await BareWire.connect(place.hostname, place.port, token, seed)
        bus = Bus(wire, name="agent", node_id=node)
        return Agent(bus, courses[index % _KINDS], chance.random())

    return await asyncio.gather(*(one(index, *key) for index, key in enumerate(keys)))


async def main(url, keys, devices):
    courses = [
        [busy(second, devices=devices, leases=2, seed=kind) for second in range(_COURSE)]
        for kind in range(_KINDS)
    ]
    agents = await join(url, keys, courses)
    children.say(agents=len(agents))
    async for command in children.commands():
        if command["do"] == "start":
            at = asyncio.get_running_loop().time() + 0.1
            for agent in agents:
                agent.start(at)
            children.say(started=True)
        elif command["do"] == "cpu":
            children.say(cpu_s=time.process_time())
        else:
            for agent in agents:
                agent.stop()
            for agent in agents:
                await agent.bus.wire.flush()
            children.say(
                offered=sum(agent.offered for agent in agents),
                sent=sum(agent.sender.sent for agent in agents),
                dropped=sum(agent.sender.dropped for agent in agents),
                waiting=sum(agent.sender.waiting for agent in agents),
            )


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        url, keys_file, devices = sys.argv[1:]
        asyncio.run(main(url, json.loads(Path(keys_file).read_text()), int(devices)))
