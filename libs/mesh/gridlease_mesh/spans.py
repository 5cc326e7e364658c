"""Spans that a node reports: no SDK there, so it tells them as small messages by telemetry.

    sender = SpanSender(bus)                          # on the node
    sender.record("task.run", traceparent, start_unix_ns=…, end_unix_ns=…, attributes={…})
    hear_spans(bus, on_span, queue="scheduler")       # in a service, which exports them

They go by core publish on ``<prefix>.tel.<node>.spans``, at most once. What cannot go out waits
in a bounded queue; the oldest gives way, and is counted.
"""

from __future__ import annotations

import collections
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from google.protobuf.message import DecodeError
from gridlease.telemetry.v1 import spans_pb2

from gridlease_mesh import trace
from gridlease_mesh.bus import Bus
from gridlease_mesh.deadletters import MALFORMED
from gridlease_mesh.wire import Listener, Unsubscribe, WireDown

_LOG = logging.getLogger(__name__)
_WAITING_MAX = 512
_BATCH = 64
_REPORT_MAX = 256
_TEXT_MAX = 200
_ATTRIBUTES_MAX = 16
_UNIX_NS_MAX = 1 << 63


@dataclass(frozen=True, slots=True)
class SpanRecord:
    """A finished span. Ids in hex; ``error`` says why it failed, empty where it did not."""

    trace_id: str
    span_id: str
    parent_span_id: str
    name: str
    start_unix_ns: int
    end_unix_ns: int
    attributes: Mapping[str, str]
    error: str = ""


def spans_subject(node_id: str) -> str:
    """Where a node's spans go, below the prefix; ``*`` for those of all."""
    return f"tel.{node_id}.spans"


class SpanSender(Listener):
    """A node's spans: never waits, never grows beyond its bound."""

    def __init__(self, bus: Bus, *, waiting_max: int = _WAITING_MAX) -> None:
        assert bus.node_id is not None, "nodes report"
        self.dropped = 0
        self._bus = bus
        self._subject = spans_subject(bus.node_id)
        self._waiting: collections.deque[SpanRecord] = collections.deque()
        self._waiting_max = waiting_max
        bus.wire.add_listener(self)

    def record(
        self,
        name: str,
        traceparent: str,
        *,
        start_unix_ns: int,
        end_unix_ns: int,
        attributes: Mapping[str, str],
        error: str = "",
    ) -> None:
        """Tell of a finished span under ``traceparent``; nothing where that is not sampled."""
        parent = trace.parse(traceparent)
        if parent is None or not int(parent.flags, 16) & 1:
            return
        own = parent.child().span_id
        start_ns, end_ns = max(0, start_unix_ns), max(0, start_unix_ns, end_unix_ns)
        record = SpanRecord(
            parent.trace_id, own, parent.span_id, name, start_ns, end_ns, attributes, error
        )
        self._waiting.append(record)
        if len(self._waiting) > self._waiting_max:
            self._waiting.popleft()
            self.dropped += 1
        self._send()

    def connected(self) -> None:
        self._send()

    def close(self) -> None:
        """Stop; what waits is given up."""
        self._bus.wire.remove_listener(self)
        self._waiting.clear()

    def _send(self) -> None:
        while self._waiting and self._bus.connected and not self._bus.wire.congested:
            batch = [self._waiting[i] for i in range(min(_BATCH, len(self._waiting)))]
            try:
                self._bus.publish(self._subject, encode(batch, self.dropped))
            except WireDown:
                return
            for _ in batch:
                self._waiting.popleft()


def hear_spans(bus: Bus, on_span: Callable[[str, SpanRecord], None], *, queue: str) -> Unsubscribe:
    """Call back with (node, span) for what nodes report; those that share ``queue`` share it."""

    def hand_over(subject: str, payload: bytes) -> None:
        try:
            records = decode(payload)
        except ValueError as bad:
            bus.dead_letters.count(MALFORMED)
            _LOG.debug("no spans in a message on %s: %s", subject, bad)
            return
        node = subject.split(".")[1]  # the broker lets a node use its own name only
        for record in records:
            on_span(node, record)

    return bus.subscribe(spans_subject("*"), hand_over, queue=queue)


def encode(records: list[SpanRecord], dropped: int = 0) -> bytes:
    """One report."""
    report = spans_pb2.SpanReport(dropped=dropped)
    for each in records:
        report.spans.add(
            trace_id=bytes.fromhex(each.trace_id),
            span_id=bytes.fromhex(each.span_id),
            parent_span_id=bytes.fromhex(each.parent_span_id),
            name=each.name[:_TEXT_MAX],
            start_unix_ns=each.start_unix_ns,
            end_unix_ns=each.end_unix_ns,
            attributes={key: value[:_TEXT_MAX] for key, value in each.attributes.items()},
            error=each.error[:_TEXT_MAX],
        )
    return report.SerializeToString()


def decode(payload: bytes) -> list[SpanRecord]:
    """The spans of one report.

    Raises:
        ValueError: it is none, or one beyond the bounds.
    """
    try:
        report = spans_pb2.SpanReport.FromString(payload)
    except DecodeError as error:
        raise ValueError("not a report") from error
    if len(report.spans) > _REPORT_MAX:
        raise ValueError("too many spans")
    return [_checked(each) for each in report.spans]


def _checked(span: spans_pb2.Span) -> SpanRecord:
    ids = ((span.trace_id, 16), (span.span_id, 8), (span.parent_span_id, 8))
    if any(len(value) != size or not any(value) for value, size in ids):
        raise ValueError("an id is malformed")
    texts = (span.name, span.error, *span.attributes, *span.attributes.values())
    if not span.name or len(span.attributes) > _ATTRIBUTES_MAX or max(map(len, texts)) > _TEXT_MAX:
        raise ValueError("a span has no name, or is too large")
    if not span.start_unix_ns <= span.end_unix_ns < _UNIX_NS_MAX:
        raise ValueError("a span ends before it begins")
    return SpanRecord(
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.name,
        span.start_unix_ns,
        span.end_unix_ns,
        dict(span.attributes),
        span.error,
    )
