"""OpenTelemetry's own gRPC interceptors run over every transport, unchanged."""

import grpc
import pytest
from opentelemetry.instrumentation.grpc import aio_client_interceptors, aio_server_interceptor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from tests.integration.mesh.suite.waits import all_of, chat, count, echo, failure, given, join


@pytest.fixture
def traced():
    """A provider, and what it exported."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider, exporter


async def _start(world, provider, **behaviours):
    return await world.start(
        interceptors=[aio_server_interceptor(tracer_provider=provider)],
        client_interceptors=aio_client_interceptors(tracer_provider=provider),
        **behaviours,
    )


CALLS = {
    "unary_unary": (echo, lambda ways: ways.uu(b"x")),
    "unary_stream": (count, lambda ways: all_of(ways.us(b"3"))),
    "stream_unary": (join, lambda ways: ways.su(given(b"a"))),
    "stream_stream": (chat, lambda ways: all_of(ways.ss(given(b"a")))),
}


@pytest.mark.parametrize("kind", CALLS)
async def test_a_call_is_one_trace(world, traced, kind):
    provider, exporter = traced
    behaviour, call = CALLS[kind]
    ways = await _start(world, provider, **{kind: behaviour})
    await call(ways)
    await world.server.stop(2)
    spans = {span.kind: span for span in exporter.get_finished_spans()}
    client, server = spans[SpanKind.CLIENT], spans[SpanKind.SERVER]
    assert server.parent.span_id == client.context.span_id
    assert server.context.trace_id == client.context.trace_id
    assert client.name.endswith(f"Suite/{kind}")
    assert server.attributes["rpc.method"] == kind


async def test_a_failure_marks_both_spans(world, traced):
    async def fail(request, context):
        await context.abort(grpc.StatusCode.INTERNAL, "no")

    provider, exporter = traced
    ways = await _start(world, provider, unary_unary=fail)
    await failure(ways.uu(b"x"))
    await world.server.stop(2)
    spans = exporter.get_finished_spans()
    assert len(spans) == 2
    assert all(span.attributes["rpc.grpc.status_code"] == 13 for span in spans)
    assert all(span.status.status_code is StatusCode.ERROR for span in spans)
