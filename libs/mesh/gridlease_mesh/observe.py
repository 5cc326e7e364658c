"""Traces and metrics of calls, by interceptors; the same for the mesh and for ``grpc.aio``.

    observer = observe.set_up("scheduler", os.environ)
    bus.server(interceptors=[*observer.server(), FaultsToStatus()])
    bus.channel(interceptors=observer.client())

Off unless asked for: then there are no interceptors, and no library is loaded. Needs the extra
``observe``, so only services import this module; agents do not (see ``spans``).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from enum import Enum
from typing import Any, Protocol, TypeAlias

import grpc
import grpc.aio
from gridlease_kernel.faults import Invalid, Precondition

from gridlease_mesh import trace
from gridlease_mesh.interceptors import Continuation
from gridlease_mesh.spans import SpanRecord

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
RATIO = "OTEL_TRACES_SAMPLER_ARG"
LISTEN = "GRIDLEASE_METRICS_LISTEN"

_CODES = {code.value[0]: code for code in grpc.StatusCode}
_KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
# Failures of the server, not of what it was asked.
# Source: OpenTelemetry semantic conventions for gRPC, "gRPC status".
_SERVER_ERRORS = frozenset(
    {
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)


Rows: TypeAlias = Sequence[tuple[Mapping[str, str], float]]  # by labels


class Side(Enum):
    """Which end of a call."""

    CLIENT = "client"
    SERVER = "server"


class Span(Protocol):
    """A span that has begun."""

    @property
    def context(self) -> trace.TraceContext: ...
    def end(self, code: grpc.StatusCode, *, failed: bool) -> None: ...


class Spans(Protocol):
    """Where spans go."""

    def begin(self, side: Side, path: str, parent: trace.TraceContext | None) -> Span: ...
    def export(self, node_id: str, record: SpanRecord) -> None: ...
    def close(self) -> None: ...


class Meters(Protocol):
    """Rate, errors and duration of each method."""

    def begun(self, side: Side, path: str) -> None: ...
    def ended(self, side: Side, path: str, code: grpc.StatusCode, span_s: float) -> None: ...
    def levels(self, name: str, rows: Rows) -> None: ...
    def close(self) -> None: ...


class Observer:
    """A process's spans and meters; either may be missing."""

    def __init__(self, spans: Spans | None = None, meters: Meters | None = None) -> None:
        self.spans = spans
        self.meters = meters

    def server(self) -> list[grpc.aio.ServerInterceptor]:
        """Interceptors of a server, to stand before all others; none where nothing is wanted."""
        return [ObserveServer(self)] if self.spans or self.meters else []

    def client(self) -> list[grpc.aio.ClientInterceptor]:
        """Interceptors of a channel, likewise."""
        if not (self.spans or self.meters):
            return []
        return [_UnaryUnary(self), _UnaryStream(self), _StreamUnary(self), _StreamStream(self)]

    def levels(self, name: str, rows: Rows) -> None:
        """Says how much of something there is now, by labels: all of it, so what is not named is
        no more. One name always has labels of the same names."""
        if self.meters is not None:
            self.meters.levels(name, rows)

    def close(self) -> None:
        """Send what waits, within a short time, and stop."""
        if self.spans is not None:
            self.spans.close()
        if self.meters is not None:
            self.meters.close()

    def begin(self, side: Side, path: str, parent: trace.TraceContext | None) -> Observed:
        """A call starts."""
        span = self.spans.begin(side, path, parent) if self.spans is not None else None
        if self.meters is not None:
            self.meters.begun(side, path)
        return Observed(self.meters, span, side, path)


class Observed:
    """One call under observation."""

    def __init__(self, meters: Meters | None, span: Span | None, side: Side, path: str) -> None:
        self.span = span
        self._meters = meters
        self._side = side
        self._path = path
        self._began_s = time.monotonic()
        self._open = True

    def end(self, code: grpc.StatusCode) -> None:
        """The call is over; told once."""
        if not self._open:
            return
        self._open = False
        errors = _SERVER_ERRORS if self._side is Side.SERVER else _CODES.values()
        if self.span is not None:
            failed = code in errors and code is not grpc.StatusCode.OK
            self.span.end(code, failed=failed)
        if self._meters is not None:
            self._meters.ended(self._side, self._path, code, time.monotonic() - self._began_s)


class ObserveServer(grpc.aio.ServerInterceptor):
    """Continues the caller's trace in a span, and counts."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        kind = _KINDS[2 * bool(handler.request_streaming) + bool(handler.response_streaming)]
        run = _many if handler.response_streaming else _one
        path = handler_call_details.method
        behaviour = functools.partial(run, self._observer, path, getattr(handler, kind))
        make = getattr(grpc, f"{kind}_rpc_method_handler")
        return make(behaviour, handler.request_deserializer, handler.response_serializer)


def _begin(observer: Observer, path: str, context: Any) -> Observed:
    observed = observer.begin(Side.SERVER, path, trace.remote(context.invocation_metadata()))
    if observed.span is not None:
        trace.enter(observed.span.context)
    return observed


async def _one(
    observer: Observer, path: str, inner: Callable[[Any, Any], Any], request: Any, context: Any
) -> Any:
    observed = _begin(observer, path, context)
    try:
        answer = inner(request, context)
        answer = await answer if hasattr(answer, "__await__") else answer
    except BaseException as error:
        observed.end(_code_of(context, error))
        raise
    observed.end(_code_of(context, None))
    return answer


async def _many(
    observer: Observer, path: str, inner: Callable[[Any, Any], Any], request: Any, context: Any
) -> AsyncIterator[Any]:
    observed = _begin(observer, path, context)
    try:
        answers = inner(request, context)
        if hasattr(answers, "__aiter__"):
            async with contextlib.aclosing(answers):
                async for answer in answers:
                    yield answer
        else:
            await answers
    except BaseException as error:
        observed.end(_code_of(context, error))
        raise
    observed.end(_code_of(context, None))


def _code_of(context: Any, error: BaseException | None) -> grpc.StatusCode:
    """How a servicer's call ends; the two transports say codes as members and as numbers."""
    said = context.code()
    code = said if isinstance(said, grpc.StatusCode) else _CODES.get(said or 0)
    if code is not None and code is not grpc.StatusCode.OK:
        return code
    if error is None:
        return grpc.StatusCode.OK
    if isinstance(error, Exception):
        return grpc.StatusCode.UNKNOWN
    left_s = context.time_remaining()  # cancelled from outside: by the deadline, or by the caller
    late = left_s is not None and left_s <= 0
    return grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.CANCELLED


class _Client:
    """What the client interceptors of the four arities share."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._ending: set[asyncio.Task[None]] = set()

    async def _call(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        method = details.method
        path = method.decode() if isinstance(method, bytes) else method
        observed = self._observer.begin(Side.CLIENT, path, trace.current())
        if observed.span is not None:
            details = _with_trace(details, observed.span.context)
        try:
            call = await continuation(details, request)
        except grpc.aio.AioRpcError as error:
            observed.end(error.code())
            raise
        except asyncio.CancelledError:
            observed.end(grpc.StatusCode.CANCELLED)
            raise
        except BaseException:
            observed.end(grpc.StatusCode.UNKNOWN)
            raise
        if hasattr(call, "add_done_callback"):
            call.add_done_callback(lambda _call: self._finish(call, observed))
        else:
            observed.end(grpc.StatusCode.OK)  # an interceptor behind us answered by itself
        return call

    def _finish(self, call: Any, observed: Observed) -> None:
        async def end() -> None:
            observed.end(await call.code())

        self._ending.add(task := asyncio.ensure_future(end()))
        task.add_done_callback(self._ending.discard)


def _with_trace(details: Any, context: trace.TraceContext) -> Any:
    old = ((key, value) for key, value in details.metadata or () if key not in _TRACE_KEYS)
    metadata = grpc.aio.Metadata(*old, *context.pairs())
    return grpc.aio.ClientCallDetails(
        details.method, details.timeout, metadata, details.credentials, details.wait_for_ready
    )


_TRACE_KEYS = (trace.TRACEPARENT, trace.TRACESTATE)


class _UnaryUnary(_Client, grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(
        self, continuation: Callable[..., Any], client_call_details: Any, request: Any
    ) -> Any:
        return await self._call(continuation, client_call_details, request)


class _UnaryStream(_Client, grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(
        self, continuation: Callable[..., Any], client_call_details: Any, request: Any
    ) -> Any:
        return await self._call(continuation, client_call_details, request)


class _StreamUnary(_Client, grpc.aio.StreamUnaryClientInterceptor):
    async def intercept_stream_unary(
        self, continuation: Callable[..., Any], client_call_details: Any, request_iterator: Any
    ) -> Any:
        return await self._call(continuation, client_call_details, request_iterator)


class _StreamStream(_Client, grpc.aio.StreamStreamClientInterceptor):
    async def intercept_stream_stream(
        self, continuation: Callable[..., Any], client_call_details: Any, request_iterator: Any
    ) -> Any:
        return await self._call(continuation, client_call_details, request_iterator)


def set_up(service: str, environ: Mapping[str, str]) -> Observer:
    """What ``environ`` asks for: spans to an OTLP endpoint, metrics on an address, or nothing.

    Raises:
        Precondition: OBSERVE_MISSING, METRICS_PORT_TAKEN.
        Invalid: SETTING_MALFORMED.
    """
    endpoint, listen = environ.get(ENDPOINT, ""), environ.get(LISTEN, "")
    spans: Spans | None = None
    meters: Meters | None = None
    try:
        if endpoint:
            from gridlease_mesh import observe_spans  # noqa: PLC0415 - loaded by who asks for it

            spans = observe_spans.exporting(service, endpoint, _ratio(environ.get(RATIO, "")))
        if listen:
            from gridlease_mesh import observe_meters  # noqa: PLC0415 - likewise

            meters = observe_meters.serving(*_address(listen))
    except ImportError as error:
        raise Precondition(
            f"Traces or metrics are asked for, and {error.name} is not installed.",
            reason="OBSERVE_MISSING",
            field=ENDPOINT if endpoint else LISTEN,
            remedy="Install gridlease[observe], or unset the variable.",
        ) from error
    return Observer(spans, meters)


def _ratio(text: str) -> float:
    try:
        ratio = float(text or "1")
    except ValueError:
        ratio = -1.0
    if not 0 <= ratio <= 1:
        raise Invalid(
            f"{RATIO}={text!r} is not a share.",
            reason="SETTING_MALFORMED",
            field=RATIO,
            remedy="Write a number from 0 to 1, such as 0.1 for every tenth trace.",
        )
    return ratio


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65_535:
        raise Invalid(
            f"{LISTEN}={text!r} is not host:port.",
            reason="SETTING_MALFORMED",
            field=LISTEN,
            remedy="Write it as 127.0.0.1:9470.",
        )
    return host.strip("[]"), int(port)


def split(path: str) -> tuple[str, str]:
    """``/package.Service/Method`` as service and method."""
    service, _, method = path.strip("/").partition("/")
    return service, method
