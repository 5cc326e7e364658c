"""The trace context: what is taken, what is passed on."""

import pytest
from gridlease_mesh import trace

GOOD = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_parse_and_write():
    context = trace.parse(GOOD, "a=b")
    assert context.header() == GOOD
    assert context.pairs() == (("traceparent", GOOD), ("tracestate", "a=b"))


def test_a_child_stays_in_the_trace():
    context = trace.parse(GOOD)
    child = context.child()
    assert child.trace_id == context.trace_id
    assert child.span_id != context.span_id


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "x",
        GOOD[:-1],
        GOOD + "-more",
        "ff" + GOOD[2:],
        GOOD.upper(),
        "00-" + "0" * 32 + "-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-" + "0" * 16 + "-01",
    ],
)
def test_malformed(bad):
    assert trace.parse(bad) is None


def test_a_later_version_is_read():
    assert trace.parse("01" + GOOD[2:] + "-more") is not None


def test_extract_starts_a_trace_where_there_is_none():
    assert trace.extract(()).trace_id != trace.extract((("traceparent", "x"),)).trace_id
    assert trace.extract((("traceparent", GOOD),)).trace_id == GOOD[3:35]


def test_outgoing_follows_the_block():
    assert trace.outgoing() == ()
    with trace.use(trace.parse(GOOD)):
        assert trace.outgoing() == (("traceparent", GOOD),)
    assert trace.outgoing() == ()
