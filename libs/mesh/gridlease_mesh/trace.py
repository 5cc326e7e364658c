"""Which request all this belongs to: the W3C trace context, carried end to end as metadata.

The mesh sends and takes it by itself; the two interceptors do the same on real gRPC. No exporter
here: logs carry the trace id, and ``observe`` attaches an SDK at the edges where one is asked for.
Source: https://www.w3.org/TR/trace-context/ (version 00).
"""

from __future__ import annotations

import contextlib
import contextvars
import random
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any, NamedTuple

import grpc
import grpc.aio

TRACEPARENT = "traceparent"
TRACESTATE = "tracestate"

_FORM = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")
_STATE_MAX = 512
_SPAN_MASK = (1 << 64) - 1
_DICE = random.Random()  # noqa: S311 - ids of traces are no secrets, and every call draws one


class TraceContext(NamedTuple):
    """A position in a trace: 16 bytes of trace, 8 bytes of span, flags, vendor state."""

    trace_id: str
    span_id: str
    flags: str = "01"
    state: str = ""

    def header(self) -> str:
        """The ``traceparent`` value."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags}"

    def child(self) -> TraceContext:
        """A new span under this one."""
        return self._replace(span_id=f"{_DICE.getrandbits(64) or 1:016x}")

    def pairs(self) -> tuple[tuple[str, str], ...]:
        """The metadata that carries it."""
        base = ((TRACEPARENT, self.header()),)
        return (*base, (TRACESTATE, self.state)) if self.state else base


class _Later:
    """The context of a call, made when somebody first asks: most calls are never asked."""

    __slots__ = ("found", "metadata")

    def __init__(self, metadata: Iterable[tuple[str, str | bytes]]) -> None:
        self.metadata = metadata
        self.found: TraceContext | None = None


_CURRENT: contextvars.ContextVar[TraceContext | _Later | None] = contextvars.ContextVar(
    "gridlease_trace", default=None
)


def new_trace() -> TraceContext:
    """The first span of a new trace."""
    drawn = _DICE.getrandbits(192)
    return TraceContext(f"{drawn >> 64 or 1:032x}", f"{drawn & _SPAN_MASK or 1:016x}")


def parse(traceparent: str, tracestate: str = "") -> TraceContext | None:
    """The context in these values; None where they are malformed (then start a new trace)."""
    found = _FORM.fullmatch(traceparent.strip())
    if found is None:
        return None
    version, trace_id, span_id, flags = found.groups()
    malformed = version == "ff" or (version == "00" and len(traceparent.strip()) != 55)
    if malformed or not trace_id.strip("0") or not span_id.strip("0"):
        return None
    return TraceContext(trace_id, span_id, flags, tracestate[:_STATE_MAX])


def current() -> TraceContext | None:
    """The span that the running code belongs to."""
    context = _CURRENT.get()
    if isinstance(context, _Later):
        if context.found is None:
            context.found = extract(context.metadata)
        return context.found
    return context


@contextlib.contextmanager
def use(context: TraceContext | None) -> Iterator[None]:
    """Run a block inside ``context``."""
    token = _CURRENT.set(context)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def enter(context: TraceContext | None) -> None:
    """Make ``context`` the current one for the rest of this task."""
    _CURRENT.set(context)


def enter_later(metadata: Iterable[tuple[str, str | bytes]]) -> None:
    """As ``enter(extract(metadata))``, done when somebody asks."""
    _CURRENT.set(_Later(metadata))


def remote(metadata: Iterable[tuple[str, str | bytes]] | None) -> TraceContext | None:
    """The caller's span, as it stands in ``metadata``; None where there is none."""
    parent, state = "", ""
    for key, value in metadata or ():
        if key == TRACEPARENT and isinstance(value, str):
            parent = value
        elif key == TRACESTATE and isinstance(value, str):
            state = value
    return parse(parent, state) if parent else None


def extract(metadata: Iterable[tuple[str, str | bytes]] | None) -> TraceContext:
    """The server's span for a call that came with ``metadata``; a new trace if it has none."""
    found = remote(metadata)
    return found.child() if found else new_trace()


def outgoing() -> tuple[tuple[str, str], ...]:
    """The metadata to send with a call made now; nothing outside any trace."""
    context = current()
    return context.pairs() if context else ()


class ClientTrace(grpc.aio.UnaryUnaryClientInterceptor, grpc.aio.UnaryStreamClientInterceptor):
    """Sends the current trace along on real gRPC (the mesh's channel needs no such thing)."""

    async def intercept_unary_unary(
        self, continuation: Callable[..., Any], client_call_details: Any, request: Any
    ) -> Any:
        return await continuation(_with_trace(client_call_details), request)

    async def intercept_unary_stream(
        self, continuation: Callable[..., Any], client_call_details: Any, request: Any
    ) -> Any:
        return await continuation(_with_trace(client_call_details), request)


def _with_trace(details: Any) -> Any:
    metadata = grpc.aio.Metadata(*(details.metadata or ()))
    if all(key != TRACEPARENT for key, _ in metadata):
        for key, value in outgoing():
            metadata.add(key, value)
    return grpc.aio.ClientCallDetails(
        details.method, details.timeout, metadata, details.credentials, details.wait_for_ready
    )


class ServerTrace(grpc.aio.ServerInterceptor):
    """Takes up the caller's trace on real gRPC (the mesh's server does it by itself)."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        enter(extract(handler_call_details.invocation_metadata))
        return await continuation(handler_call_details)
