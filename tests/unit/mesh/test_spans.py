"""Spans of nodes: what goes out, what is refused, what is dropped."""

import pytest
from gridlease.telemetry.v1 import spans_pb2
from gridlease_mesh import spans
from gridlease_mesh.bus import Bus
from gridlease_mesh.loopback import LoopbackBroker

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"
TIMES = {"start_unix_ns": 5, "end_unix_ns": 9}


def record(sender, name="task.run", parent=PARENT):
    sender.record(name, parent, **TIMES, attributes={"gridlease.lease": "l-1"})


async def test_what_waits_for_the_connection_is_bounded_and_counted(monkeypatch):
    broker = LoopbackBroker()
    node = Bus(broker.wire(), name="agent", node_id="n-1")
    service = Bus(broker.wire(), name="scheduler")
    heard = []
    spans.hear_spans(service, lambda node, span: heard.append((node, span.name)), queue="q")
    sender = spans.SpanSender(node, waiting_max=2)
    with monkeypatch.context() as away:
        away.setattr(Bus, "connected", property(lambda _self: False))
        for name in ("a", "b", "c"):
            record(sender, name)
    assert sender.dropped == 1
    sender.connected()
    await node.flush()
    assert heard == [("n-1", "b"), ("n-1", "c")]
    sender.close()


async def test_what_is_not_sampled_is_not_told():
    broker = LoopbackBroker()
    node, service = Bus(broker.wire(), name="agent", node_id="n-1"), Bus(broker.wire(), name="s")
    heard = []
    spans.hear_spans(service, lambda node, span: heard.append(span), queue="q")
    sender = spans.SpanSender(node)
    for parent in ("", "nonsense", PARENT[:-2] + "00"):
        record(sender, parent=parent)
    record(sender)
    await node.flush()
    assert [each.trace_id for each in heard] == [TRACE]


GOOD = {
    "trace_id": b"t" * 16,
    "span_id": b"s" * 8,
    "parent_span_id": b"p" * 8,
    "name": "task.run",
    **TIMES,
}


@pytest.mark.parametrize(
    "wrong",
    [
        {"trace_id": b"t"},
        {"trace_id": bytes(16)},
        {"span_id": b""},
        {"parent_span_id": b""},
        {"name": ""},
        {"name": "x" * 201},
        {"end_unix_ns": 4},
        {"end_unix_ns": 1 << 63},
        {"attributes": {str(n): "" for n in range(17)}},
        {"attributes": {"k": "v" * 201}},
    ],
)
def test_what_is_malformed_is_refused(wrong):
    def report(**fields):
        return spans_pb2.SpanReport(spans=[spans_pb2.Span(**fields)]).SerializeToString()

    assert spans.decode(report(**GOOD))
    with pytest.raises(ValueError, match=r"id|span"):
        spans.decode(report(**{**GOOD, **wrong}))


def test_noise_is_refused():
    with pytest.raises(ValueError, match="not a report"):
        spans.decode(b"\xff")
    many = spans_pb2.SpanReport(spans=[spans_pb2.Span(**GOOD)] * 257)
    with pytest.raises(ValueError, match="too many"):
        spans.decode(many.SerializeToString())
