"""A database's events, without the database."""

import asyncio
import contextlib

from gridlease_mesh.bus import Bus
from gridlease_mesh.consumer import Consumer, ConsumerTerms
from gridlease_mesh.feed import Feed, FeedTerms, Told

ROOM = "scheduler"


class Events:
    """``History`` in memory; ``born`` tells two of them apart."""

    def __init__(self, born=1_700_000_000_000_000):
        self.rows = []
        self.born = born

    def add(self, count=1, entity="jobs/a", headers=None):
        for _ in range(count):
            number = len(self.rows) + 1
            payload = f"{entity}:{number}".encode()
            self.rows.append(
                Told(number, self.born + number, "job.told", entity, payload, headers or {})
            )

    async def after(self, sequence, limit):
        return self.rows[sequence : sequence + limit]

    async def start(self, keep_s, keep_messages):
        return max(0, len(self.rows) - keep_messages)

    async def knows(self, sequence, created_us):
        return sequence <= len(self.rows) and self.rows[sequence - 1].created_us == created_us


class Listener:
    """A consumer that keeps what it hears; ``poison`` payloads fail."""

    def __init__(self, bus, name, terms, how=None):
        self.heard = []
        self.poison = set()
        self.consumer = Consumer(bus, name, self._handle, terms, how or ConsumerTerms())

    async def _handle(self, heard):
        if heard.payload in self.poison:
            raise ValueError("cannot digest this")
        self.heard.append(heard)

    @property
    def sequences(self):
        return [heard.sequence for heard in self.heard]


@contextlib.asynccontextmanager
async def running(*things):
    """Their ``run`` for as long as the block lasts."""
    tasks = [asyncio.create_task(thing.run()) for thing in things]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def join(nats, name):
    return await Bus.connect(nats.url, creds=nats.service_creds(name), name=name)


def feed_of(bus, events, **terms):
    return Feed(bus, ROOM, events, FeedTerms(**{"check_s": 0.3, **terms}))
