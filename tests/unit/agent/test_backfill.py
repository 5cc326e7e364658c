"""Telemetry that is cut off: kept, thinned, told once and in order, with the right times."""

import contextlib

import pytest
from gridlease_agent.adapters.telemetry_spool import TelemetrySpool
from gridlease_agent.backfill import Backfill
from gridlease_agent.domain.thinning import HOUR_MS, most_kept
from gridlease_mesh.bus import Bus
from gridlease_mesh.loopback import LoopbackBroker
from gridlease_mesh.telemetry import TelemetryReader
from gridlease_mesh.telemetry_sample import DeviceIdentity, DeviceReadings, NodeIdentity, sample
from gridlease_mesh.wire import WireDown
from gridlease_testkit.waiting import eventually

WHO = NodeIdentity("host", devices=(DeviceIdentity("gpu-0"),))
BORN_MS = 1_800_000_000_000


class World:
    """A reader, and a node whose clocks are numbers."""

    def __init__(self, folder):
        self.path = folder / "telemetry.sqlite"
        self.lose = lambda _delivery: False
        self.broker = LoopbackBroker(tap=lambda d: () if self.lose(d) else (d,))
        self.heard = []
        self.bus = Bus(self.broker.wire(), name="metrics")
        self.reader = TelemetryReader(self.bus, self.heard.append)
        self.now_ms = 5000
        self.wrong_ms = 0
        self.agent("boot-a")

    def agent(self, boot, quota_bytes=32 << 20):
        self.node = Bus(self.broker.wire(), name="agent", node_id="n-1")
        self.wire = self.node.wire
        self.spool = TelemetrySpool(self.path, boot, quota_bytes)
        self.backfill = Backfill(self.node, self.spool, lambda: self.now_ms, self.wall)

    def wall(self):
        return BORN_MS + self.now_ms + self.wrong_ms

    def second(self):
        self.now_ms += 1000
        power = DeviceReadings(power_mw=(self.now_ms,))
        self.backfill.offer(sample(time_unix_ms=self.wall(), identity=WHO, devices=power))

    def seconds(self, count):
        for _ in range(count):
            self.second()

    async def told(self):
        await self.backfill.catch_up()
        await eventually(lambda: not self.spool.waiting, 5.0, "all told")
        await self.node.flush()

    @property
    def powers(self):
        return [report.sample.devices.power_mw[0] for report in self.heard]

    def counts(self):
        counts = self.reader.counts_of("n-1")
        return counts.lost, counts.keyless, counts.bad


@pytest.fixture
async def world(tmp_path):
    made = World(tmp_path)
    yield made
    with contextlib.suppress(Exception):
        made.spool.close()
    made.reader.close()


async def test_a_cut_loses_nothing_and_keeps_the_order(world):
    await world.told()
    world.seconds(5)
    world.wire.disconnect()
    world.seconds(200)
    assert world.spool.waiting == 205  # the five were never confirmed
    world.wire.reconnect()
    world.seconds(3)
    await world.told()
    world.seconds(2)
    await eventually(lambda: len(world.heard) == 210, 5.0, "all heard")
    assert world.powers == [6000 + 1000 * n for n in range(210)]
    assert world.counts() == (0, 0, 0)
    assert world.reader.counts_of("n-1").repeated == 5


async def test_what_the_dying_connection_swallowed_is_told_again(world):
    await world.told()
    world.seconds(3)
    world.lose = lambda _delivery: True
    world.seconds(4)
    world.wire.disconnect()
    world.lose = lambda _delivery: False
    world.wire.reconnect()
    await world.told()
    await eventually(lambda: len(world.heard) == 7, 5.0, "all heard")
    assert world.powers == [6000 + 1000 * n for n in range(7)]
    assert world.counts() == (0, 0, 0)


async def test_what_is_confirmed_is_not_told_again(world):
    await world.told()
    world.seconds(5)
    await world.backfill.catch_up()
    world.wire.disconnect()
    assert world.spool.waiting == 0
    world.wire.reconnect()
    await world.told()
    assert world.reader.counts_of("n-1").repeated == 0


async def test_a_break_while_catching_up_repeats_and_is_taken_once(world):
    world.wire.disconnect()
    world.seconds(300)
    world.wire.reconnect()
    seen = []

    def dies(delivery):
        seen.append(delivery)
        if len(seen) == 100:
            world.wire.disconnect()
        return False

    world.lose = dies
    with pytest.raises(WireDown):
        await world.backfill.catch_up()
    world.lose = lambda _delivery: False
    world.wire.reconnect()
    await world.told()
    await eventually(lambda: len(world.heard) == 300, 5.0, "all heard")
    assert world.powers == [6000 + 1000 * n for n in range(300)]
    assert world.reader.counts_of("n-1").repeated > 0


async def test_times_are_set_right_on_return(world):
    world.wrong_ms = -86_400_000  # a board without a battery wakes up yesterday
    world.wire.disconnect()
    world.seconds(10)
    world.wrong_ms = 0
    world.wire.reconnect()
    await world.told()
    await eventually(lambda: len(world.heard) == 10, 5.0, "all heard")
    assert [r.time_unix_ms for r in world.heard] == [BORN_MS + power for power in world.powers]


async def test_a_killed_agent_numbers_on_and_a_reboot_begins_anew(world):
    world.wire.disconnect()
    world.seconds(20)
    world.spool.close()
    world.agent("boot-a")
    world.wire.disconnect()
    world.seconds(20)
    first = world.spool.stream
    world.spool.close()
    world.now_ms = 0
    world.agent("boot-b")
    world.wire.disconnect()
    world.seconds(20)
    assert world.spool.stream != first
    world.wire.reconnect()
    await world.told()
    await eventually(lambda: len(world.heard) == 60, 5.0, "all heard")
    keys = [(report.stream, report.sequence) for report in world.heard]
    assert len(set(keys)) == 60
    assert world.powers == [
        *(6000 + 1000 * n for n in range(40)),
        *(1000 * n for n in range(1, 21)),
    ]
    assert world.counts() == (0, 0, 0)


async def test_the_quota_takes_the_oldest(world):
    world.spool.close()
    world.agent("boot-a", quota_bytes=200_000)
    world.wire.disconnect()
    world.seconds(3000)
    world.spool.thin(world.now_ms)
    assert world.spool.size_bytes <= 200_000
    assert 0 < world.spool.waiting < 3000
    world.wire.reconnect()
    await world.told()
    await eventually(lambda: world.powers[-1:] == [world.now_ms], 5.0, "the newest is heard")
    counts = world.reader.counts_of("n-1")
    assert (counts.lost, counts.bad) == (0, 0)


async def test_hours_are_thinned_as_the_page_says(world):
    world.wire.disconnect()
    world.seconds(2 * 3600)
    world.spool.thin(world.now_ms)
    assert world.spool.waiting <= most_kept(2)
    world.wire.reconnect()
    await world.told()
    await eventually(lambda: world.powers[-1:] == [world.now_ms], 5.0, "the newest is heard")
    ages = [world.now_ms - power for power in world.powers]
    assert sum(age <= HOUR_MS for age in ages) >= 3600
    old = [power // 10_000 for power, age in zip(world.powers, ages, strict=True) if age > HOUR_MS]
    assert len(old) - len(set(old)) <= 10
    assert world.counts() == (0, 0, 0)


async def test_an_unreadable_spool_is_set_aside(world):
    world.spool.close()
    for path in world.path.parent.glob("telemetry.sqlite*"):
        path.unlink()
    world.path.write_bytes(b"nonsense" * 1000)
    world.agent("boot-a")
    world.seconds(3)
    assert world.path.with_suffix(".broken").exists()
