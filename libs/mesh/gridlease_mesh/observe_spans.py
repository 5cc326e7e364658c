"""Spans by the OpenTelemetry SDK, named and attributed as its RPC conventions say."""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence

import grpc
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    TraceFlags,
    TraceState,
    set_span_in_context,
)
from opentelemetry.trace import Span as SdkSpan
from opentelemetry.trace.status import Status, StatusCode

from gridlease_mesh import trace
from gridlease_mesh.observe import Side, split
from gridlease_mesh.spans import SpanRecord

_SCOPE = "gridlease_mesh"
_EXPORT_S = 5
_CLOSE_S = 1.5
_KIND = {Side.CLIENT: SpanKind.CLIENT, Side.SERVER: SpanKind.SERVER}


class OtelSpan:
    """A span that has begun; ``context`` is what goes on to those below it."""

    def __init__(self, span: SdkSpan) -> None:
        self._span = span
        at = span.get_span_context()
        self.context = trace.TraceContext(
            f"{at.trace_id:032x}",
            f"{at.span_id:016x}",
            f"{at.trace_flags:02x}",
            at.trace_state.to_header(),
        )

    def end(self, code: grpc.StatusCode, *, failed: bool) -> None:
        self._span.set_attribute("rpc.grpc.status_code", code.value[0])
        if failed:
            self._span.set_status(Status(StatusCode.ERROR, code.name))
        self._span.end()


class OtelSpans:
    """A tracer of one service. The caller's decision to sample holds; else ``ratio`` decides."""

    def __init__(
        self, service: str, processors: Sequence[SpanProcessor], ratio: float = 1.0
    ) -> None:
        self._processors = tuple(processors)
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(ratio)),
            resource=_resource(service),
            shutdown_on_exit=False,  # an absent collector must not hold the process
        )
        for each in processors:
            self._provider.add_span_processor(each)
        self._tracer = self._provider.get_tracer(_SCOPE)

    def begin(self, side: Side, path: str, parent: trace.TraceContext | None) -> OtelSpan:
        service, method = split(path)
        remote = side is Side.SERVER
        span = self._tracer.start_span(
            f"{service}/{method}",
            context=_under(_position(parent, remote=remote)) if parent else Context(),
            kind=_KIND[side],
            attributes={"rpc.system": "grpc", "rpc.service": service, "rpc.method": method},
        )
        return OtelSpan(span)

    def export(self, node_id: str, record: SpanRecord) -> None:
        """Take a span that a node finished; the subject said which node."""
        own = trace.TraceContext(record.trace_id, record.span_id)
        parent = trace.TraceContext(record.trace_id, record.parent_span_id)
        failed = Status(StatusCode.ERROR, record.error) if record.error else Status()
        span = ReadableSpan(
            record.name,
            context=_position(own, remote=False),
            parent=_position(parent, remote=True),
            resource=_node(node_id),
            attributes={**record.attributes, "gridlease.node": node_id},
            kind=SpanKind.INTERNAL,
            instrumentation_scope=InstrumentationScope(_SCOPE),
            status=failed,
            start_time=record.start_unix_ns,
            end_time=record.end_unix_ns,
        )
        for each in self._processors:
            each.on_end(span)

    def close(self) -> None:
        # The SDK would wait for an absent collector as long as it likes.
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(_CLOSE_S)


def exporting(service: str, endpoint: str, ratio: float) -> OtelSpans:
    """Spans that go to an OTLP endpoint over gRPC, in batches; the queue is bounded."""
    exporter = OTLPSpanExporter(
        endpoint=endpoint, insecure=not endpoint.startswith("https://"), timeout=_EXPORT_S
    )
    return OtelSpans(service, [BatchSpanProcessor(exporter)], ratio)


@functools.lru_cache(maxsize=4096)
def _node(node_id: str) -> Resource:
    return _resource("agent", {"service.instance.id": node_id})


def _resource(service: str, more: dict[str, str] | None = None) -> Resource:
    names = {"service.name": f"gridlease-{service}", "service.namespace": "gridlease"}
    return Resource.create({**names, **(more or {})})


def _position(at: trace.TraceContext, *, remote: bool) -> SpanContext:
    return SpanContext(
        int(at.trace_id, 16),
        int(at.span_id, 16),
        remote,
        TraceFlags(int(at.flags, 16)),
        TraceState.from_header([at.state]) if at.state else TraceState(),
    )


def _under(parent: SpanContext) -> Context:
    return set_span_in_context(NonRecordingSpan(parent), Context())
