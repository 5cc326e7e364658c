"""The outbox relay: told after the commit, marked after the telling."""

import asyncio

import pytest
from gridlease_mesh.outbox import Relay, Row, relay_once
from gridlease_mesh.wire import WireDown


class Table:
    def __init__(self, count):
        self.rows = [Row(n, f"events.{n}", b"x") for n in range(count)]
        self.emptied = asyncio.Event()

    async def unsent(self, limit):
        return self.rows[:limit]

    async def mark_sent(self, ids):
        self.rows = [row for row in self.rows if row.id not in ids]
        if not self.rows:
            self.emptied.set()


class Teller:
    def __init__(self):
        self.told = []
        self.down = False

    def publish(self, subject, payload, *, headers=b""):
        if self.down:
            raise WireDown
        self.told.append(subject)

    async def flush(self, timeout_s=5.0):
        if self.down:
            raise WireDown


async def test_a_batch_in_order():
    table, teller = Table(5), Teller()
    assert await relay_once(table, teller, batch=3) == 3
    assert teller.told == ["events.0", "events.1", "events.2"]
    assert [row.id for row in table.rows] == [3, 4]


async def test_nothing_is_marked_that_the_broker_has_not_seen():
    table, teller = Table(2), Teller()
    teller.down = True
    with pytest.raises(WireDown):
        await relay_once(table, teller)
    assert len(table.rows) == 2


async def test_the_relay_outlives_trouble_and_wakes_up():
    table, teller = Table(10), Teller()
    teller.down = True
    relay = Relay(table, teller, poll_s=0.01, batch=3)
    running = asyncio.create_task(relay.run())
    teller.down = False
    await asyncio.wait_for(table.emptied.wait(), 5.0)
    table.emptied.clear()
    table.rows.append(Row(99, "events.late", b"x"))
    relay.wake()
    await asyncio.wait_for(table.emptied.wait(), 5.0)
    assert len(teller.told) == 11
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
