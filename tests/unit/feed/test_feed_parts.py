"""The pure parts of the event feed: names, ids, headers, marks."""

import contextlib

import pytest
from gridlease_mesh import frames
from gridlease_mesh.consumer import Malformed, Marks, decode, place_of
from gridlease_mesh.feed import (
    FeedTerms,
    Told,
    headers_of,
    message_id,
    parse_message_id,
)
from gridlease_mesh.permissions import stream_name
from gridlease_mesh.wire import Delivery
from hypothesis import given
from hypothesis import strategies as st

EVENTS = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(min_value=1, max_value=20)), max_size=40
)


def told(sequence=7, **changes):
    return Told(sequence, 1_700_000_000_000_001, "job.done", "jobs/a", b"x")._replace(**changes)


def test_a_feed_of_the_usual_prefix_has_a_plain_name():
    assert (stream_name("EVENTS", "gl"), stream_name("EVENTS", "t1")) == ("EVENTS", "EVENTS_t1")
    terms = FeedTerms(prefix="t1", replicas=3)
    assert terms.config()["subjects"] == ["t1.events.>"]
    assert terms.dead_config()["subjects"] == ["t1.dead.>"]
    assert terms.config()["num_replicas"] == terms.dead_config()["num_replicas"] == 3


def test_the_feed_is_bounded():
    config = FeedTerms().config()
    assert config["discard"] == "old"
    assert all(config[name] > 0 for name in ("max_age", "max_msgs", "max_msg_size"))


@given(st.integers(min_value=1), st.integers(min_value=0))
def test_a_message_id_says_which_event(sequence, created_us):
    text = message_id("scheduler", told(sequence, created_us=created_us))
    assert parse_message_id(text) == (sequence, created_us)


@pytest.mark.parametrize("text", ["", "scheduler", "scheduler.1", "scheduler.x.1", "a.1.-2", "..."])
def test_what_is_no_id_of_ours(text):
    assert parse_message_id(text) is None


def test_an_events_own_headers_go_along_but_for_ours():
    own = {"traceparent": "00-a", "Nats-Msg-Id": "forged", "gl-entity": "forged", "x": "é"}
    pairs = headers_of("scheduler", told(headers=own), 41)
    assert pairs == [
        ("Nats-Msg-Id", "scheduler.7.1700000000000001"),
        ("Nats-Expected-Last-Sequence", "41"),
        ("Gl-Entity", "jobs/a"),
        ("Gl-Sequence", "7"),
        ("traceparent", "00-a"),
    ]


def delivery(pairs, ack="$JS.ACK.EVENTS.c.2.41.3.1700.0"):
    return Delivery("gl.events.job.done", ack, frames.encode_headers(pairs), b"x")


def test_a_consumer_reads_what_the_feed_wrote():
    heard = decode(delivery(headers_of("scheduler", told(), 41)), "gl")
    assert (heard.topic, heard.entity, heard.sequence) == ("job.done", "jobs/a", 7)
    assert (heard.payload, heard.tries) == (b"x", 2)


@pytest.mark.parametrize(
    "pairs", [[], [("Gl-Entity", "a")], [("Gl-Entity", "a"), ("Gl-Sequence", "-1")]]
)
def test_what_no_feed_wrote_is_malformed(pairs):
    with pytest.raises(Malformed):
        decode(delivery(pairs), "gl")


@given(st.binary(max_size=60))
def test_any_header_bytes_are_read_or_malformed(raw):
    with contextlib.suppress(Malformed):
        decode(Delivery("gl.events.x", "", raw, b""), "gl")


@pytest.mark.parametrize(
    ("ack", "place"),
    [
        ("$JS.ACK.EVENTS.c.2.41.3.1700.0", (2, "41.1700")),
        ("$JS.ACK.hub.HASH.EVENTS.c.5.41.3.1700.0.rnd", (5, "41.1700")),
        ("$JS.ACK.hub.HASH.EVENTS.c.5.41.3.1700.0", (5, "41.1700")),
        ("", (1, "")),
        ("a.b.c", (1, "")),
    ],
)
def test_the_ack_subject_says_how_often(ack, place):
    assert place_of(ack) == place


@given(EVENTS)
def test_each_entity_ends_at_its_newest(events):
    marks = Marks()
    applied = [event for event in events if marks.apply(*event)]
    for entity in "abc":
        seen = [sequence for name, sequence in events if name == entity]
        mine = [sequence for name, sequence in applied if name == entity]
        assert marks.applied.get(entity, 0) == max(seen, default=0)
        assert mine == sorted(set(mine))


@given(EVENTS, EVENTS)
def test_telling_again_from_any_point_changes_nothing(events, again):
    """In order per entity, as the feed tells it; then any of it once more."""
    ordered = sorted(set(events))
    marks = Marks()
    for event in ordered:
        assert marks.apply(*event)
    before = dict(marks.applied)
    repeated = [event for event in again if event in ordered]
    assert [event for event in repeated if marks.apply(*event)] == []
    assert marks.applied == before
