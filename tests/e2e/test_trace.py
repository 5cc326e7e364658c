"""One trace from the gateway to the task on its node, by OTLP; metrics of each service."""

from __future__ import annotations

import asyncio
import concurrent.futures
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from gridlease_testkit.ports import free_port
from gridlease_testkit.waiting import eventually
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from tests.e2e.world import ENDED, World, draft, state_is

GATEWAY = "gridlease.gateway.v1.JobService/CreateJob"
SUBMIT = "gridlease.scheduler.v1.JobService/SubmitJob"


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps what comes: (service, span)."""

    def __init__(self) -> None:
        self.spans: list = []

    def Export(self, request, context):  # noqa: N802 - named in the proto
        for each in request.resource_spans:
            names = {pair.key: pair.value.string_value for pair in each.resource.attributes}
            for scope in each.scope_spans:
                self.spans += [(names["service.name"], span) for span in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()


@pytest.fixture
def collector() -> Iterator[tuple[Collector, int]]:
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(2))
    one = Collector()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(one, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield one, port
    server.stop(1.0).wait()


@pytest.fixture
def observed(folder: Path, collector: tuple[Collector, int]) -> Iterator[tuple[World, int]]:
    metrics = free_port()
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector[1]}",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "GRIDLEASE_METRICS_LISTEN": f"127.0.0.1:{metrics}",
    }
    one = World(folder / "observed", timing=environ)
    one.start()
    yield one, metrics
    one.stop()


def facts(span) -> dict[str, str]:
    return {pair.key: pair.value.string_value for pair in span.attributes}


def scrape(port: int) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        return bytes(answer.read())


@pytest.mark.slow  # a platform comes up: some 10 s; by default: tests/integration/mesh
async def test_one_trace_from_the_gateway_to_the_node(observed, collector) -> None:
    world, metrics = observed
    spans = collector[0].spans
    async with world.tenant() as tenant:
        job = await tenant.submit(draft("true"))
        await state_is(tenant, job.name, *ENDED)

    def mine() -> dict:
        ran = [
            s for _, s in spans if s.name == "task.run" and facts(s)["gridlease.job"] == job.name
        ]
        traces = {s.trace_id for s in ran}
        found = {(who, s.name, s.kind): s for who, s in spans if s.trace_id in traces}
        return found if len(found) >= 5 else {}

    found = await eventually(mine, 20.0, "the spans of the job")
    door = found["gridlease-gateway", GATEWAY, 2]
    asked = found["gridlease-gateway", SUBMIT, 3]
    served = found["gridlease-scheduler", SUBMIT, 2]
    assert door.parent_span_id == b""
    assert asked.parent_span_id == door.span_id
    assert served.parent_span_id == asked.span_id
    for name in ("task.prepare", "task.run"):
        told = found["gridlease-agent", name, 1]
        assert told.parent_span_id == served.span_id
        assert facts(told)["gridlease.node"]
        assert served.start_time_unix_nano < told.start_time_unix_nano < told.end_time_unix_nano
    for port in range(metrics, metrics + 3):
        assert b"rpc_server_call_duration_seconds_count" in await asyncio.to_thread(scrape, port)
