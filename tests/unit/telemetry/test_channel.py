"""Sender and reader over a broker in memory: pressure, cuts, losses, restarts, bounds."""

import pytest
from gridlease_mesh.bus import Bus
from gridlease_mesh.loopback import LoopbackBroker
from gridlease_mesh.telemetry import TelemetryReader, TelemetrySender, report_subject
from gridlease_mesh.telemetry_sample import (
    DeviceIdentity,
    DeviceReadings,
    NodeIdentity,
    sample,
)
from gridlease_mesh.wire import WireDown
from gridlease_testkit.waiting import eventually

WHO = NodeIdentity("host", devices=(DeviceIdentity("gpu-0"),))


def taken(number):
    return sample(time_unix_ms=number, identity=WHO, devices=DeviceReadings(power_mw=(number,)))


class World:
    """A broker that loses what it is told to lose, a reader, and nodes."""

    def __init__(self):
        self.lose = lambda _delivery: False
        self.broker = LoopbackBroker(tap=lambda d: () if self.lose(d) else (d,))
        self.heard = []
        self.reader = self.read()

    def read(self, **options):
        self.bus = Bus(self.broker.wire(), name="metrics")
        return TelemetryReader(self.bus, self.heard.append, **options)

    def node(self, node_id="n-1", **options):
        bus = Bus(self.broker.wire(), name="agent", node_id=node_id)
        sender = TelemetrySender(bus, **options)
        sender.wire = bus.wire
        return sender

    async def settled(self, count, what=None):
        await eventually(lambda: len(self.heard) >= count, 5.0, "reports heard")
        assert len(self.heard) == count
        if what is not None:
            assert [report.sample.devices.power_mw[0] for report in self.heard] == what


@pytest.fixture
async def world():
    made = World()
    yield made
    made.reader.close()


async def test_what_is_offered_is_heard_in_order_with_the_nodes_name(world):
    sender = world.node()
    for number in range(1, 6):
        sender.offer(taken(number))
    await world.settled(5, [1, 2, 3, 4, 5])
    assert {report.node for report in world.heard} == {"n-1"}
    assert world.heard[0].sample == taken(1)
    assert (sender.sent, sender.waiting, sender.dropped) == (5, 0, 0)


async def test_a_cut_keeps_the_history_and_drops_the_oldest_beyond_it(world):
    sender = world.node(history=3)
    sender.offer(taken(1))
    await world.settled(1)
    sender.wire.disconnect()
    for number in range(2, 10):
        sender.offer(taken(number))
    assert (sender.waiting, sender.dropped) == (3, 5)
    sender.wire.reconnect()
    await world.settled(4, [1, 7, 8, 9])
    counts = world.reader.counts_of("n-1")
    assert (counts.received, counts.dropped, counts.lost) == (4, 5, 0)
    assert world.heard[-1].dropped == 5


async def test_a_wire_under_pressure_drops_the_oldest_too(world, monkeypatch):
    sender = world.node(history=2)
    congested = True
    monkeypatch.setattr(type(sender.wire), "congested", property(lambda _wire: congested))
    for number in range(1, 6):
        sender.offer(taken(number))
    congested = False
    sender.offer(taken(6))
    await world.settled(2, [5, 6])
    assert sender.dropped == 4


async def test_a_publish_that_fails_is_kept(world, monkeypatch):
    sender = world.node()

    def fail(*_args, **_options):
        raise WireDown

    with monkeypatch.context() as patch:
        patch.setattr(type(sender.wire), "publish", fail)
        sender.offer(taken(1))
    assert sender.waiting == 1
    sender.offer(taken(2))
    await world.settled(2, [1, 2])


async def test_losses_are_told_from_drops(world):
    sender = world.node(history=2)
    sender.offer(taken(1))
    await world.settled(1)
    world.lose = lambda delivery: delivery.subject.endswith(".report")
    sender.offer(taken(2))
    sender.wire.disconnect()
    for number in range(3, 8):
        sender.offer(taken(number))
    world.lose = lambda _delivery: False
    sender.wire.reconnect()
    await world.settled(3, [1, 6, 7])
    counts = world.reader.counts_of("n-1")
    assert (counts.lost, counts.dropped) == (1, 3)


async def test_a_lost_key_report_is_asked_for_again(world):
    sender = world.node(key_every=3)
    for number in (1, 2, 3):
        sender.offer(taken(number))
    await world.settled(3)
    world.lose = lambda delivery: delivery.subject.endswith(".report")
    sender.offer(taken(4))  # the key report
    world.lose = lambda _delivery: False
    sender.offer(taken(5))
    await eventually(lambda: world.reader.counts_of("n-1").keyless == 1, 5.0)
    sender.offer(taken(6))
    await world.settled(4, [1, 2, 3, 6])
    counts = world.reader.counts_of("n-1")
    assert (counts.lost, counts.keyless) == (1, 1)


async def test_an_ask_that_is_lost_is_repeated(world):
    sender = world.node(key_every=1000)
    sender.offer(taken(1))
    await world.settled(1)
    late = world.read()
    asks = []
    world.lose = lambda d: d.subject.endswith(".key") and (asks.append(d) or len(asks) == 1)
    for number in range(2, 13):
        sender.offer(taken(number))
        await eventually(lambda n=number: world.reader.counts_of("n-1").received == n, 5.0)
    assert len(asks) == 2
    assert late.counts_of("n-1").keyless == 9
    assert late.counts_of("n-1").received == 2
    late.close()


async def test_a_restart_of_the_agent_is_a_new_stream(world):
    world.node(stream=1).offer(taken(1))
    await world.settled(1)
    world.node(stream=2).offer(taken(2))
    await world.settled(2, [1, 2])
    assert world.reader.counts_of("n-1").lost == 0


async def test_memory_is_bounded_and_the_forgotten_still_count(world):
    world.reader.close()
    small = world.read(max_nodes=2)
    senders = {node: world.node(node) for node in ("n-1", "n-2", "n-3")}
    for number, node in enumerate(("n-1", "n-2", "n-1", "n-3"), 1):
        senders[node].offer(taken(number))
        await world.settled(number)
    assert small.nodes == ("n-1", "n-3")
    assert small.counts_of("n-2").received == 0
    assert small.total().received == 4
    small.close()


async def test_bytes_that_are_no_report_are_counted_and_nothing_else(world):
    wire = world.broker.wire()
    for payload in (b"", b"\xff" * 40, b"{}"):
        wire.publish(report_subject("gl", "n-1"), payload)
    await eventually(lambda: world.reader.total().bad == 3, 5.0)
    assert world.bus.dead_letters.total == 3
    world.node().offer(taken(1))
    await world.settled(1)
