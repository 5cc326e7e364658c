"""One trace through several rooms, the metrics of their calls, and the spans that nodes report."""

import asyncio
import urllib.request

import grpc
import pytest
from gridlease_kernel.faults import Invalid, Precondition
from gridlease_mesh import observe, trace
from gridlease_mesh.bus import Bus
from gridlease_mesh.credentials import new_user_key, write_creds
from gridlease_mesh.observe_meters import PrometheusMeters
from gridlease_mesh.observe_spans import OtelSpans
from gridlease_mesh.spans import SpanSender, hear_spans
from gridlease_testkit.waiting import eventually
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from tests.integration.mesh.conftest import TRANSPORTS
from tests.integration.mesh.echo import echo_pb2, echo_pb2_grpc

SERVICE = "gridlease.meshtest.v1.EchoService"
TRACE = "0af7651916cd43dd8448eb211c80319c"
SUBMIT = f"00-{TRACE}-b7ad6b7169203331-01"


class Seen:
    """An observer whose spans stay in memory."""

    def __init__(self, ratio=1.0):
        self.memory = InMemorySpanExporter()
        self.meters = PrometheusMeters()
        spans = OtelSpans("test", [SimpleSpanProcessor(self.memory)], ratio)
        self.observer = observe.Observer(spans, self.meters)

    def spans(self):
        return self.memory.get_finished_spans()

    async def wait(self, count):
        await eventually(lambda: len(self.spans()) >= count)
        return {(span.kind, span.name): span for span in self.spans()}

    def sample(self, name, **labels):
        return self.meters.registry.get_sample_value(name, labels)


def scrape(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        return answer.read().decode()


@pytest.fixture
def seen():
    return Seen()


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_one_trace_goes_through_a_nested_call(serve, seen, transport):
    observer = seen.observer
    inner = await serve(transport, observer.server())
    outer = await serve(transport if transport == "grpc" else "loopback", observer.server())
    further = echo_pb2_grpc.EchoServiceStub(inner.make_channel(observer.client()))

    async def relay(request, _context):
        await further.Say(echo_pb2.SayRequest(text=request.text))

    outer.echo._relay = relay
    stub = echo_pb2_grpc.EchoServiceStub(outer.make_channel(observer.client()))
    with trace.use(trace.parse(SUBMIT)):
        assert (await stub.Say(echo_pb2.SayRequest(text="x", mode="relay"))).text == "x"
    await seen.wait(4)
    spans = seen.spans()
    assert {f"{span.context.trace_id:032x}" for span in spans} == {TRACE}
    assert {span.name for span in spans} == {f"{SERVICE}/Say"}
    assert sorted(span.kind.name for span in spans) == ["CLIENT", "CLIENT", "SERVER", "SERVER"]
    # Each is the child of the one before it: client, server, client, server.
    by_parent = {f"{span.parent.span_id:016x}": span for span in spans}
    at, kinds = SUBMIT.split("-")[2], []
    while at in by_parent:
        span = by_parent[at]
        kinds.append(span.kind)
        at = f"{span.context.span_id:016x}"
    assert kinds == [SpanKind.CLIENT, SpanKind.SERVER] * 2
    assert inner.echo.trace.trace_id == TRACE
    assert dict(span.attributes) == {
        "rpc.system": "grpc",
        "rpc.service": SERVICE,
        "rpc.method": "Say",
        "rpc.grpc.status_code": 0,
    }


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_all_arities_and_errors(serve, seen, transport):
    pair = await serve(transport, seen.observer.server())
    stub = echo_pb2_grpc.EchoServiceStub(pair.make_channel(seen.observer.client()))

    async def questions():
        for text in "ab":
            yield echo_pb2.SayRequest(text=text)

    assert [each async for each in stub.Repeat(echo_pb2.RepeatRequest(count=3))]
    await stub.Gather(questions())
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await stub.Say(echo_pb2.SayRequest(mode="abort"))
    assert failed.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    with pytest.raises(grpc.aio.AioRpcError):
        await stub.Forgotten(echo_pb2.SayRequest())
    with pytest.raises(grpc.aio.AioRpcError):
        await stub.Say(echo_pb2.SayRequest(mode="hang"), timeout=0.1)
    await eventually(lambda: len(seen.spans()) == 10)

    def statuses(kind):
        found = {}
        for span in seen.spans():
            if span.kind is kind:
                code = span.attributes["rpc.grpc.status_code"]
                key = (span.name.rpartition("/")[2], code)
                found[key] = span.status.status_code is StatusCode.ERROR
        return found

    assert statuses(SpanKind.CLIENT) == {
        ("Repeat", 0): False,
        ("Gather", 0): False,
        ("Say", 9): True,
        ("Forgotten", 12): True,
        ("Say", 4): True,
    }
    server = statuses(SpanKind.SERVER)
    assert not server["Say", 9], "what it was asked was wrong, not the server"
    assert server["Forgotten", 12]
    assert server["Say", 4]
    method = {"rpc_service": SERVICE, "rpc_method": "Say"}
    for side in ("client", "server"):
        assert seen.sample(f"rpc_{side}_calls_in_flight", **method) == 0
        name, code = f"rpc_{side}_call_duration_seconds_count", "FAILED_PRECONDITION"
        assert seen.sample(name, **method, rpc_grpc_status_code=code) == 1


async def test_the_callers_decision_to_sample_holds(serve):
    seen = Seen(ratio=0.0)
    pair = await serve("loopback", seen.observer.server())
    stub = echo_pb2_grpc.EchoServiceStub(pair.make_channel(seen.observer.client()))
    await stub.Say(echo_pb2.SayRequest())
    assert int(pair.echo.trace.flags, 16) & 1 == 0
    with trace.use(trace.parse(SUBMIT)):
        await stub.Say(echo_pb2.SayRequest())
    await seen.wait(2)
    assert {f"{span.context.trace_id:032x}" for span in seen.spans()} == {TRACE}


async def test_metrics_are_scraped_over_http(serve):
    observer = observe.set_up("test", {"GRIDLEASE_METRICS_LISTEN": "127.0.0.1:0"})
    try:
        pair = await serve("loopback", observer.server())
        await pair.stub.Say(echo_pb2.SayRequest())
        text = await asyncio.to_thread(scrape, observer.meters.port)
        taken = {"GRIDLEASE_METRICS_LISTEN": f"127.0.0.1:{observer.meters.port}"}
        with pytest.raises(Precondition) as refused:
            observe.set_up("test", taken)
        assert refused.value.reason == "METRICS_PORT_TAKEN"
    finally:
        observer.close()
    labels = f'rpc_grpc_status_code="OK",rpc_method="Say",rpc_service="{SERVICE}"'
    assert f"rpc_server_call_duration_seconds_count{{{labels}}} 1.0" in text


def test_nothing_is_observed_unless_asked_for():
    observer = observe.set_up("test", {})
    assert (observer.server(), observer.client()) == ([], [])
    observer.close()


@pytest.mark.parametrize(
    "environ",
    [
        {"GRIDLEASE_METRICS_LISTEN": "9470"},
        {"GRIDLEASE_METRICS_LISTEN": "host:70000"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_TRACES_SAMPLER_ARG": "2"},
    ],
)
def test_malformed_settings_are_named(environ):
    with pytest.raises(Invalid) as refused:
        observe.set_up("test", environ)
    assert refused.value.field in environ


async def test_spans_of_a_node_are_exported_as_its_own(nats, seen, tmp_path):
    seed, public = new_user_key()
    creds = tmp_path / "n-1.creds"
    write_creds(creds, nats.authority.mint_node_user("n-1", public, 3600), seed)
    service = await Bus.connect(nats.url, creds=nats.service_creds("scheduler"), name="scheduler")
    node = await Bus.connect(nats.url, creds=creds, name="agent", node_id="n-1")
    try:
        hear_spans(service, seen.observer.spans.export, queue="scheduler")
        await service.flush()
        sender = SpanSender(node)
        about = {"gridlease.lease": "l-1", "gridlease.job": "projects/p/jobs/j"}
        times = {
            "start_unix_ns": 1_700_000_000_000_000_000,
            "end_unix_ns": 1_700_000_001_000_000_000,
        }
        sender.record("task.run", SUBMIT, **times, attributes=about, error="exit code 1")
        node.publish("tel.n-1.spans", b"\xff")
        await eventually(lambda: seen.spans() and service.dead_letters.total == 1)
    finally:
        await node.close()
        await service.close()
    (span,) = seen.spans()
    assert span.name == "task.run"
    assert f"{span.context.trace_id:032x}" == TRACE
    assert f"{span.parent.span_id:016x}" == SUBMIT.split("-")[2]
    assert dict(span.attributes) == {**about, "gridlease.node": "n-1"}
    assert span.resource.attributes["service.name"] == "gridlease-agent"
    assert (span.start_time, span.end_time) == tuple(times.values())
    assert span.status.status_code is StatusCode.ERROR


def test_levels_are_told_whole_so_that_what_is_gone_is_gone():
    meters = PrometheusMeters()
    observer = observe.Observer(None, meters)
    observer.levels("months", [({}, 3)])
    observer.levels("idle", [])
    observer.levels("idle", [({"chip": "A"}, 1.5), ({"chip": "B"}, 2)])
    observer.levels("idle", [({"chip": "B"}, 4)])
    value = meters.registry.get_sample_value
    assert (value("months"), value("idle", {"chip": "B"})) == (3, 4)
    assert value("idle", {"chip": "A"}) is None
    observe.Observer().levels("months", [({}, 1)])  # nobody asked for metrics
