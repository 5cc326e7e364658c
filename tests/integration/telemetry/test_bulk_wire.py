"""Reading in bursts loses nothing, keeps the order, and comes back after the broker does."""

import asyncio

import pytest
from gridlease_mesh.bus import Bus
from gridlease_mesh.telemetry_wire import BulkWire
from gridlease_testkit.waiting import eventually


@pytest.fixture
async def bulk(nats):
    creds = nats.service_creds("metrics")
    wire = await BulkWire.connect(nats.url, creds=creds, name="metrics")
    yield Bus(wire, name="metrics")
    await wire.close()


async def test_all_messages_come_in_order_and_in_bursts(bus, bulk):
    heard, moments = [], set()

    def hear(_subject, payload):
        heard.append(int(payload))
        moments.add(round(asyncio.get_running_loop().time() / bulk.wire.rest_s))

    bulk.subscribe("bulk", hear)
    await bulk.flush()
    for number in range(2000):
        bus.publish("bulk", b"%d" % number)
        if number % 20 == 0:
            await bus.flush()  # spreads them over many of the reader's moments
    await eventually(lambda: len(heard) == 2000)
    assert heard == list(range(2000))
    assert len(moments) < 1000


async def test_it_hears_again_after_the_connection_was_lost(bus, bulk):
    heard = []
    bulk.subscribe("bulk", lambda _subject, payload: heard.append(payload))
    await bulk.flush()
    bus.publish("bulk", b"before")
    await eventually(lambda: heard == [b"before"])
    back = asyncio.Event()
    bulk.on_connected(back.set)
    bulk.wire._socket().abort()
    await asyncio.wait_for(back.wait(), 10.0)
    await bulk.flush()
    bus.publish("bulk", b"after")
    await eventually(lambda: heard == [b"before", b"after"])
