"""The event feed on a real broker: in order, exactly once in the stream, whatever is lost."""

import base64
import itertools
import shutil

import pytest
from gridlease_mesh.consumer import ConsumerTerms, Marks
from gridlease_mesh.embedded import EmbeddedNats
from gridlease_mesh.feed import FeedTerms
from gridlease_mesh.jetstream import JetStream
from gridlease_testkit.waiting import eventually

from tests.integration.feed.history import Events, Listener, feed_of, join, running

NUMBERS = itertools.count()


@pytest.fixture
def prefix():
    return f"feed{next(NUMBERS)}"


@pytest.fixture
async def service(nats):
    bus = await join(nats, "scheduler")
    yield bus
    await bus.close()


@pytest.fixture
async def jetstream(service):
    made = JetStream(service)
    yield made
    made.close()


async def stored(jetstream, terms):
    """The event sequences in the stream, in its order."""
    state = (await jetstream.api(f"STREAM.INFO.{terms.stream}"))["state"]
    found = []
    for number in range(state["first_seq"], state["last_seq"] + 1):
        got = await jetstream.api(f"STREAM.MSG.GET.{terms.stream}", {"seq": number})
        found.append(int(base64.b64decode(got["message"]["data"]).rpartition(b":")[2]))
    return found


async def test_events_are_told_in_order_and_once(service, jetstream, prefix):
    events, terms = Events(), FeedTerms(prefix=prefix)
    events.add(600)
    feed = feed_of(service, events, prefix=prefix)
    async with running(feed):
        await eventually(lambda: feed.cursor.sequence == 600)
        events.add(3)
        feed.wake()
        await eventually(lambda: feed.cursor.sequence == 603)
    assert await stored(jetstream, terms) == list(range(1, 604))
    assert feed.counts.told == 603


async def test_two_shippers_double_nothing(service, jetstream, prefix):
    events = Events()
    feeds = [feed_of(service, events, prefix=prefix) for _ in range(2)]
    async with running(*feeds):
        for _ in range(20):
            events.add(10)
            for feed in feeds:
                feed.wake()
            goal = len(events.rows)
            await eventually(lambda goal=goal: max(f.cursor.sequence for f in feeds) == goal)
    assert await stored(jetstream, FeedTerms(prefix=prefix)) == list(range(1, 201))


async def test_a_shipper_goes_on_where_the_last_one_died(service, jetstream, prefix):
    events = Events()
    for total in (5, 9, 9):
        events.add(total - len(events.rows))
        feed = feed_of(service, events, prefix=prefix)
        async with running(feed):
            await eventually(lambda f=feed, total=total: f.cursor.sequence == total)
    assert await stored(jetstream, FeedTerms(prefix=prefix)) == list(range(1, 10))


async def test_the_trace_goes_along(service, prefix):
    events, terms = Events(), FeedTerms(prefix=prefix)
    events.add(headers={"traceparent": "00-abc"})
    listener = Listener(service, "reader", terms)
    async with running(feed_of(service, events, prefix=prefix), listener.consumer):
        await eventually(lambda: listener.heard)
    assert listener.heard[0].headers["traceparent"] == "00-abc"
    assert listener.heard[0].topic == "job.told"


async def test_a_lost_stream_is_built_again_and_nobody_misses_an_event(service, jetstream, prefix):
    events, terms = Events(), FeedTerms(prefix=prefix)
    events.add(10)
    feed, listener = feed_of(service, events, prefix=prefix), Listener(service, "reader", terms)
    async with running(feed, listener.consumer):
        await eventually(lambda: listener.sequences == list(range(1, 11)))
        await jetstream.api(f"STREAM.DELETE.{terms.stream}")
        events.add(5)
        feed.wake()
        await eventually(lambda: 15 in listener.sequences, timeout_s=15.0)
    assert await stored(jetstream, terms) == list(range(1, 16))
    marks = Marks()
    applied = [h.sequence for h in listener.heard if marks.apply(h.entity, h.sequence)]
    assert applied == list(range(1, 16))


async def test_a_deleted_store_is_built_again(state_folder):
    """The broker dies, its disk is lost, it comes back: no event is missed."""
    server = EmbeddedNats(state_folder / "nats")
    server.start()
    events, terms = Events(), FeedTerms()
    events.add(10)
    bus = await join(server, "scheduler")
    feed, listener = feed_of(bus, events, check_s=60.0), Listener(bus, "reader", terms)
    async with running(feed, listener.consumer):
        await eventually(lambda: listener.sequences == list(range(1, 11)))
        server.kill()
        shutil.rmtree(server.folder / "jetstream")
        events.add(5)
        feed.wake()
        server.start()
        await eventually(lambda: 15 in listener.sequences, timeout_s=20.0)
    marks = Marks()
    applied = [h.sequence for h in listener.heard if marks.apply(h.entity, h.sequence)]
    assert applied == list(range(1, 16))
    await bus.close()
    server.stop()


async def test_a_stream_of_another_database_is_replaced(service, jetstream, prefix):
    terms = FeedTerms(prefix=prefix)
    old = Events(born=1)
    old.add(30)
    feed = feed_of(service, old, prefix=prefix)
    async with running(feed):
        await eventually(lambda: feed.cursor.sequence == 30)
    for count in (40, 3):  # one that is longer, one that is shorter
        fresh = Events(born=count * 1_000_000_000)
        fresh.add(count)
        feed = feed_of(service, fresh, prefix=prefix)
        async with running(feed):
            await eventually(lambda f=feed, count=count: f.cursor.sequence == count)
        assert await stored(jetstream, terms) == list(range(1, count + 1))


async def test_a_lost_tail_is_told_again(service, jetstream, prefix):
    events, terms = Events(), FeedTerms(prefix=prefix)
    events.add(10)
    feed = feed_of(service, events, prefix=prefix)
    async with running(feed):
        await eventually(lambda: feed.cursor.sequence == 10)
    config = terms.config()
    await jetstream.api(f"STREAM.DELETE.{terms.stream}")
    await jetstream.ensure_stream(config)
    short = Events()
    short.rows = events.rows[:7]
    feed = feed_of(service, short, prefix=prefix)
    async with running(feed):
        await eventually(lambda: feed.cursor.sequence == 7)
    feed = feed_of(service, events, prefix=prefix)
    async with running(feed):
        await eventually(lambda: feed.cursor.sequence == 10)
    assert await stored(jetstream, terms) == list(range(1, 11))


async def test_an_old_feed_keeps_its_bound(service, jetstream, prefix):
    events = Events()
    events.add(50)
    feed = feed_of(service, events, prefix=prefix, keep_messages=20)
    async with running(feed):
        await eventually(lambda: feed.cursor.sequence == 50)
        events.add(5)
        feed.wake()
        await eventually(lambda: feed.cursor.sequence == 55)
    assert await stored(jetstream, FeedTerms(prefix=prefix)) == list(range(36, 56))


async def test_a_poison_message_goes_to_the_dead_letters(service, jetstream, prefix):
    events, terms = Events(), FeedTerms(prefix=prefix)
    events.add(5)
    listener = Listener(service, "reader", terms, ConsumerTerms(max_tries=3, retry_s=0.01))
    listener.poison.add(b"jobs/a:3")
    async with running(feed_of(service, events, prefix=prefix), listener.consumer):
        await eventually(lambda: listener.sequences == [1, 2, 4, 5])
    counts = listener.consumer.counts
    assert (counts.handled, counts.failed, counts.dead) == (4, 3, 1)
    assert service.dead_letters.by_reason()["poison_event"] == 1
    got = await jetstream.api(
        f"STREAM.MSG.GET.{terms.dead_stream}", {"last_by_subj": f"{prefix}.dead.>"}
    )
    message = got["message"]
    assert base64.b64decode(message["data"]) == b"jobs/a:3"
    assert b"ValueError: cannot digest this" in base64.b64decode(message["hdrs"])


async def test_what_is_no_event_goes_to_the_dead_letters(service, prefix):
    events, terms = Events(), FeedTerms(prefix=prefix)
    feed, listener = feed_of(service, events, prefix=prefix), Listener(service, "reader", terms)
    async with running(feed, listener.consumer):
        await eventually(lambda: listener.consumer.counts.reopened and feed.counts.rebuilt)
        for junk in (b"", b"\x00\xff", b"NATS/1.0\r\n\r\n"):
            service.wire.publish(f"{prefix}.events.junk", junk)
        await eventually(lambda: listener.consumer.counts.dead == 3)
        events.add(2)
        feed.wake()
        await eventually(lambda: listener.sequences == [1, 2], timeout_s=10.0)


async def test_a_consumer_goes_on_where_it_was(service, prefix):
    events, terms = Events(), FeedTerms(prefix=prefix)
    events.add(5)
    feed = feed_of(service, events, prefix=prefix)
    first, second = (Listener(service, "reader", terms) for _ in range(2))
    async with running(feed):
        async with running(first.consumer):
            await eventually(lambda: first.sequences == [1, 2, 3, 4, 5])
            await service.flush()
        events.add(2)
        feed.wake()
        async with running(second.consumer):
            await eventually(lambda: second.sequences[-2:] == [6, 7])
    assert set(second.sequences) <= {5, 6, 7}  # an ack may be lost with its process
