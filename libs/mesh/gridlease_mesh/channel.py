# ruff: noqa: ARG002 - the arguments are grpc's
"""A ``grpc.aio.Channel`` over the mesh: generated stubs run on it unchanged.

Every call has a deadline (the channel's default where the caller gives none) and fails fast:
UNAVAILABLE at once where nobody serves the name or the broker is away. See docs of the mesh for
what differs from gRPC: a server killed in the middle of a unary call shows at the deadline only.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterable, Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, NoReturn, Self

import grpc
import grpc.aio

from gridlease_mesh import flow, frames, subjects, trace
from gridlease_mesh.calls import MeshCall, Request, StreamCall, UnaryCall
from gridlease_mesh.intercept import InterceptedStream, InterceptedUnary
from gridlease_mesh.wire import Delivery, Listener, Wire, WireDown

DEFAULT_TIMEOUT_S = 10.0
KEEPALIVE_S = 5.0

Serializer = Callable[[Any], bytes]
Deserializer = Callable[[bytes], Any]


class MeshChannel(grpc.aio.Channel, Listener):
    """Calls one target: any instance of a service, or one node's own services."""

    def __init__(
        self,
        wire: Wire,
        *,
        root: str,
        inbox: str,
        default_timeout_s: float = DEFAULT_TIMEOUT_S,
        interceptors: Sequence[grpc.aio.ClientInterceptor] = (),
        keepalive_s: float = KEEPALIVE_S,
    ) -> None:
        """Start listening for answers.

        Args:
            root: of the subjects to call, see ``subjects``.
            inbox: prefix of the subjects where this side hears answers.
        """
        assert default_timeout_s > 0, default_timeout_s
        self.wire = wire
        self.interceptors = tuple(interceptors)
        self.root = root
        self._default_timeout_s = default_timeout_s
        self._keepalive_s = keepalive_s
        self._inbox = f"{inbox}.{secrets.token_hex(8)}"
        self._calls: dict[str, MeshCall] = {}
        self._counter = 0
        self._closed = False
        self._loop = asyncio.get_running_loop()
        self._beat_timer: asyncio.TimerHandle | None = None
        self._changed = asyncio.Event()
        self._unsubscribe = wire.subscribe(f"{self._inbox}.*", self._on_delivery)
        wire.add_listener(self)

    # grpc.aio.Channel

    def unary_unary(
        self,
        method: str,
        request_serializer: Serializer | None = None,
        response_deserializer: Deserializer | None = None,
        _registered_method: bool | None = False,
    ) -> UnaryUnary:
        return UnaryUnary(self, method, request_serializer, response_deserializer)

    def unary_stream(
        self,
        method: str,
        request_serializer: Serializer | None = None,
        response_deserializer: Deserializer | None = None,
        _registered_method: bool | None = False,
    ) -> UnaryStream:
        return UnaryStream(self, method, request_serializer, response_deserializer)

    def stream_unary(
        self,
        method: str,
        request_serializer: Serializer | None = None,
        response_deserializer: Deserializer | None = None,
        _registered_method: bool | None = False,
    ) -> ClientStream:
        return ClientStream(method)

    def stream_stream(
        self,
        method: str,
        request_serializer: Serializer | None = None,
        response_deserializer: Deserializer | None = None,
        _registered_method: bool | None = False,
    ) -> ClientStream:
        return ClientStream(method)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        if self._closed:
            return grpc.ChannelConnectivity.SHUTDOWN
        if self.wire.connected:
            return grpc.ChannelConnectivity.READY
        return grpc.ChannelConnectivity.TRANSIENT_FAILURE

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        while self.get_state() is last_observed_state:
            await self._changed.wait()

    async def channel_ready(self) -> None:
        while (state := self.get_state()) is not grpc.ChannelConnectivity.READY:
            if state is grpc.ChannelConnectivity.SHUTDOWN:
                raise grpc.aio.UsageError("Channel is closed.")
            await self.wait_for_state_change(state)

    async def close(self, grace: float | None = None) -> None:
        if self._closed:
            return
        self._closed = True
        if grace and self._calls:
            endings = [asyncio.ensure_future(call.code()) for call in self._calls.values()]
            await asyncio.wait(endings, timeout=grace)
            for ending in endings:
                ending.cancel()
        for call in list(self._calls.values()):
            call.cancel()
        self._unsubscribe()
        self.wire.remove_listener(self)
        if self._beat_timer is not None:
            self._beat_timer.cancel()
        self._notify()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        await self.close()

    # Listener

    def connected(self) -> None:
        self._notify()

    def disconnected(self) -> None:
        for call in list(self._calls.values()):
            call.finish(grpc.StatusCode.UNAVAILABLE, "the connection to NATS was lost")
        self._notify()

    def refused(self, subject: str) -> None:
        for call in list(self._calls.values()):
            if call.request.subject.lower() == subject:
                call.finish(
                    grpc.StatusCode.PERMISSION_DENIED, "the broker refuses this caller this name"
                )

    # What calls need.

    @property
    def closed(self) -> bool:
        return self._closed

    def forget(self, call: MeshCall) -> None:
        self._calls.pop(call.request.reply, None)

    def timeout_of(self, timeout_s: float | None) -> float:
        """The caller's, or the default: no call is without one."""
        return self._default_timeout_s if timeout_s is None else timeout_s

    def start(
        self,
        kind: type[UnaryCall] | type[StreamCall],
        method: str,
        details: grpc.aio.ClientCallDetails,
        payload: bytes,
        deserialize: Deserializer | None,
    ) -> Any:
        """Make a call and send its first message; a call that cannot go out is already ended."""
        if self._closed:
            raise grpc.aio.UsageError("Channel is closed.")
        timeout_s = self.timeout_of(details.timeout)
        headers = self._headers(kind, timeout_s, details.metadata)
        block = frames.encode_headers(headers)
        room = self.wire.max_payload_bytes - flow.HEADROOM_BYTES
        promoted = len(block) + len(payload) > room
        if promoted:
            headers.append((frames.FRAMED, str(len(payload))))
            block = frames.encode_headers(headers)
        self._counter += 1
        request = Request(
            subjects.method_subject(self.root, method),
            f"{self._inbox}.{self._counter}",
            f"{self.root}._cancel",
            payload,
            headers,
            deserialize,
            self._loop.time() + max(0.0, timeout_s),
        )
        call = kind(self, request, promoted=promoted)
        if timeout_s <= 0:
            call.finish(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
        elif len(payload) > flow.MAX_MESSAGE_BYTES or len(block) > room:
            limit = f"larger than {flow.MAX_MESSAGE_BYTES} bytes"
            call.finish(grpc.StatusCode.RESOURCE_EXHAUSTED, f"the request is {limit}")
        else:
            self._send(call, b"" if promoted else payload, block)
        return call

    def _headers(
        self, kind: type[MeshCall], timeout_s: float, metadata: Iterable[Any] | None
    ) -> list[frames.HeaderPair]:
        headers = [(frames.TIMEOUT, frames.encode_timeout(max(0, round(timeout_s * 1e9))))]
        if kind is StreamCall:
            window = flow.DEFAULT_WINDOW
            headers.append((frames.WINDOW, f"{window.messages},{window.size_bytes}"))
        given = frames.encode_metadata(metadata or ())
        headers += given
        if not any(key == trace.TRACEPARENT for key, _ in given):
            headers += trace.outgoing()
        return headers

    def _send(self, call: MeshCall, payload: bytes, block: bytes) -> None:
        request = call.request
        self._calls[request.reply] = call
        try:
            self.wire.publish(request.subject, payload, reply=request.reply, headers=block)
        except WireDown as down:
            call.finish(grpc.StatusCode.UNAVAILABLE, down.message)
            return
        if self._beat_timer is None:
            self._beat_timer = self._loop.call_later(self._keepalive_s, self._beat)

    def _beat(self) -> None:
        self._beat_timer = None
        for call in list(self._calls.values()):
            call.beat(self._keepalive_s)
        if self._calls and not self._closed:
            self._beat_timer = self._loop.call_later(self._keepalive_s, self._beat)

    def _on_delivery(self, delivery: Delivery) -> None:
        call = self._calls.get(delivery.subject)
        if call is not None:
            call.on_delivery(delivery)

    def _notify(self) -> None:
        self._changed.set()
        self._changed.clear()


class _Method:
    """A method bound to a channel."""

    def __init__(
        self,
        channel: MeshChannel,
        method: str,
        serialize: Serializer | None,
        deserialize: Deserializer | None,
    ) -> None:
        self._channel = channel
        self._method = method
        self._serialize = serialize
        self._deserialize = deserialize

    def _details(
        self, timeout: float | None, metadata: Any, credentials: Any, wait_for_ready: bool | None
    ) -> grpc.aio.ClientCallDetails:
        given = grpc.aio.Metadata(*(metadata or ()))
        return grpc.aio.ClientCallDetails(
            self._method, self._channel.timeout_of(timeout), given, credentials, wait_for_ready
        )

    def _begin(
        self,
        kind: type[UnaryCall] | type[StreamCall],
        details: grpc.aio.ClientCallDetails,
        request: Any,
    ) -> Any:
        payload = self._serialize(request) if self._serialize else request
        method = details.method
        name = method.decode() if isinstance(method, bytes) else method
        return self._channel.start(kind, name, details, payload, self._deserialize)


class UnaryUnary(_Method, grpc.aio.UnaryUnaryMultiCallable[Any, Any]):
    """What a stub holds for a unary method."""

    def __call__(
        self,
        request: Any,
        *,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> grpc.aio.UnaryUnaryCall[Any, Any]:
        details = self._details(timeout, metadata, credentials, wait_for_ready)
        chain = [i for i in self._channel.interceptors if hasattr(i, "intercept_unary_unary")]
        if chain:
            return InterceptedUnary(chain, self._start, details, request)
        return self._start(details, request)

    def _start(self, details: grpc.aio.ClientCallDetails, request: Any) -> UnaryCall:
        call: UnaryCall = self._begin(UnaryCall, details, request)
        return call


class UnaryStream(_Method, grpc.aio.UnaryStreamMultiCallable[Any, Any]):
    """What a stub holds for a server-streaming method."""

    def __call__(
        self,
        request: Any,
        *,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> grpc.aio.UnaryStreamCall[Any, Any]:
        details = self._details(timeout, metadata, credentials, wait_for_ready)
        chain = [i for i in self._channel.interceptors if hasattr(i, "intercept_unary_stream")]
        if chain:
            return InterceptedStream(chain, self._start, details, request)
        return self._start(details, request)

    def _start(self, details: grpc.aio.ClientCallDetails, request: Any) -> StreamCall:
        call: StreamCall = self._begin(StreamCall, details, request)
        return call


class ClientStream(
    grpc.aio.StreamUnaryMultiCallable[Any, Any], grpc.aio.StreamStreamMultiCallable[Any, Any]
):
    """What a stub holds for a client-streaming method: the mesh does not carry these yet."""

    def __init__(self, method: str) -> None:
        self._method = method

    def __call__(
        self,
        request_iterator: AsyncIterable[Any] | Iterable[Any] | None = None,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> NoReturn:
        raise grpc.aio.AioRpcError(
            grpc.StatusCode.UNIMPLEMENTED,
            grpc.aio.Metadata(),
            grpc.aio.Metadata(),
            details=f"the mesh does not carry streams of requests yet: {self._method}",
        )
