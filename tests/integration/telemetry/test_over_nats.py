"""Telemetry over a real broker, with a node's own narrow credentials."""

import pytest
from gridlease_mesh.bus import Bus
from gridlease_mesh.credentials import new_user_key, write_creds
from gridlease_mesh.telemetry import TelemetryReader, TelemetrySender
from gridlease_mesh.telemetry_sample import DeviceIdentity, DeviceReadings, NodeIdentity, sample
from gridlease_testkit.waiting import eventually

WHO = NodeIdentity("host", devices=tuple(DeviceIdentity(f"gpu-{n}") for n in range(8)))


def taken(number):
    readings = DeviceReadings(energy_mj=tuple(range(number, number + 8)))
    return sample(time_unix_ms=number, identity=WHO, devices=readings)


@pytest.fixture
async def node(nats, tmp_path):
    seed, public = new_user_key()
    creds = tmp_path / "node.creds"
    write_creds(creds, nats.authority.mint_node_user("n-tel", public), seed)
    bus = await Bus.connect(nats.url, creds=creds, name="agent", node_id="n-tel")
    yield bus
    await bus.close()


async def test_reports_arrive_and_a_late_reader_gets_the_key_it_asks_for(bus, node):
    heard, late_heard = [], []
    first = TelemetryReader(bus, heard.append)
    await bus.flush()
    sender = TelemetrySender(node, key_every=1000)
    await node.flush()  # the broker knows where asks go
    for number in range(1, 4):
        sender.offer(taken(number))
    await eventually(lambda: len(heard) == 3)
    assert [report.sample for report in heard] == [taken(n) for n in (1, 2, 3)]
    late = TelemetryReader(bus, late_heard.append)
    await bus.flush()
    number = 3

    def offered_and_heard():
        nonlocal number
        number += 1
        sender.offer(taken(number))
        return late_heard

    await eventually(offered_and_heard)
    assert late_heard[0].sample == taken(late_heard[0].sequence)
    await eventually(lambda: first.total().received == number)
    assert (first.total().lost, late.total().lost) == (0, 0)
    sender.close()
    first.close()
    late.close()


async def test_a_node_cannot_report_as_another(bus, node):
    heard = []
    reader = TelemetryReader(bus, heard.append)
    await bus.flush()
    liar = Bus(node.wire, name="agent", node_id="n-victim")
    sender = TelemetrySender(liar)
    honest = TelemetrySender(node)
    sender.offer(taken(1))
    honest.offer(taken(1))
    await eventually(lambda: heard)
    assert reader.nodes == ("n-tel",)
    sender.close()
    honest.close()
    reader.close()
