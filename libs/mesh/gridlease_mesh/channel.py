# ruff: noqa: ARG002 - the arguments are grpc's
"""A ``grpc.aio.Channel`` over the mesh: generated stubs run on it unchanged.

Every call has a deadline (the channel's default where the caller gives none) and fails fast:
UNAVAILABLE at once where nobody serves the name or the broker is away, and within two seconds
where the instance that has it died. docs/mesh.md tells what differs from gRPC.
"""

from __future__ import annotations

import asyncio
import functools
import secrets
import weakref
from collections.abc import Collection, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
import grpc.aio

from gridlease_mesh import flow, frames, retries, subjects, trace
from gridlease_mesh.calls import KEEPALIVE_MISSES, Abandoned, MeshCall, Request
from gridlease_mesh.deadletters import MALFORMED, UNKNOWN_CALL
from gridlease_mesh.methods import (
    Deserializer,
    Serializer,
    StreamStream,
    StreamUnary,
    UnaryStream,
    UnaryUnary,
    check_interceptors,
)
from gridlease_mesh.presence import Presence
from gridlease_mesh.wire import Delivery, Listener, Wire, WireDown

DEFAULT_TIMEOUT_S = 10.0
KEEPALIVE_S = 5.0
_LOOK_AGAIN_S = 0.5  # for a server, where the caller waits for one

C = TypeVar("C", bound=MeshCall)


class MeshChannel(grpc.aio.Channel, Listener):
    """Calls one target: any instance of a service, one instance, or one node's own services."""

    def __init__(
        self,
        wire: Wire,
        *,
        root: str,
        inbox: str,
        default_timeout_s: float = DEFAULT_TIMEOUT_S,
        interceptors: Sequence[grpc.aio.ClientInterceptor] = (),
        keepalive_s: float = KEEPALIVE_S,
        idempotent: Collection[str] = (),
        compression: grpc.Compression | None = None,
    ) -> None:
        """Start listening for answers.

        Args:
            root: of the subjects to call, see ``subjects``.
            inbox: prefix of the subjects where this side hears answers.
            idempotent: methods (/package.Service/Method) that may be retried, besides those
                whose proto says so.
            compression: anything but None or NoCompression squeezes what is worth it.
        """
        assert default_timeout_s > 0, default_timeout_s
        check_interceptors(interceptors)
        self.wire = wire
        self.interceptors = tuple(interceptors)
        self.root = root
        self.compression = compression
        self.retries = retries.Retries(idempotent)
        self.dead_letters = wire.dead_letters
        self.inbox = f"{inbox}.{secrets.token_hex(8)}"
        self._skip = len(self.inbox) + 1
        self._default_timeout_s = default_timeout_s
        self._keepalive_s = keepalive_s
        self._calls: dict[str, MeshCall | weakref.ref[MeshCall]] = {}
        self._counter = 0
        self._closed = False
        self._loop = asyncio.get_running_loop()
        self._beat_timer: asyncio.TimerHandle | None = None
        self._changed = asyncio.Event()
        self._presence = Presence(self)
        self._known: dict[str, tuple[str, str]] = {}
        self._unsubscribe = wire.subscribe(f"{self.inbox}.*", self._on_delivery)
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
    ) -> StreamUnary:
        return StreamUnary(self, method, request_serializer, response_deserializer)

    def stream_stream(
        self,
        method: str,
        request_serializer: Serializer | None = None,
        response_deserializer: Deserializer | None = None,
        _registered_method: bool | None = False,
    ) -> StreamStream:
        return StreamStream(self, method, request_serializer, response_deserializer)

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
            endings = [asyncio.ensure_future(call.code()) for call in self.live()]
            await asyncio.wait(endings, timeout=grace)
            for ending in endings:
                ending.cancel()
        for call in list(self.live()):
            call.cancel()
        self._unsubscribe()
        self.wire.remove_listener(self)
        self._presence.close()
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
        for call in list(self.live()):
            call.fail("the connection to NATS was lost")
        self._notify()

    def refused(self, subject: str) -> None:
        self._presence.on_refused(subject)
        for call in list(self.live()):
            if call.request.subject.lower() == subject:
                call.finish(
                    grpc.StatusCode.PERMISSION_DENIED, "the broker refuses this caller this name"
                )

    # What calls and presence need.

    @property
    def closed(self) -> bool:
        return self._closed

    def live(self) -> Iterator[MeshCall]:
        """The calls in flight; do not change them while iterating."""
        for entry in self._calls.values():
            call = entry if isinstance(entry, MeshCall) else entry()
            if call is not None:
                yield call

    def find(self, token: str) -> MeshCall | None:
        """The call whose reply subject ends in ``token``."""
        entry = self._calls.get(token)
        return entry if entry is None or isinstance(entry, MeshCall) else entry()

    def new_reply(self) -> str:
        self._counter += 1
        return f"{self.inbox}.{self._counter}"

    def forget(self, call: MeshCall) -> None:
        self._calls.pop(call.reply[self._skip :], None)

    def ask_about(self, call: MeshCall) -> None:
        self._presence.ask((call,))

    def abandon(self, call: Abandoned) -> None:
        call.timer.cancel()
        if self._calls.pop(call.reply[self._skip :], None) is not None and self.wire.connected:
            self.wire.publish(call.subject, call.payload)

    def succeeded(self, call: MeshCall) -> None:
        self.retries.earn()

    def try_again(self, call: MeshCall, *, delivered: bool) -> bool:
        """Whether the call goes out again, later: it waits, or it is idempotent and affordable."""
        request = call.request
        if self._closed:
            return False
        waits = request.waits and (request.idempotent or not delivered)
        if waits:
            wait_s = min(_LOOK_AGAIN_S, retries.wait_s(call.attempts))
        elif request.idempotent and self.retries.spend(call.attempts):
            wait_s = retries.wait_s(call.attempts)
        else:
            return False
        if self._loop.time() + wait_s >= request.deadline:
            return waits  # its deadline will end it
        self.forget(call)
        call.start_over()
        self._keep(call)
        self._loop.call_later(wait_s, self._send, call)
        return True

    def timeout_of(self, timeout_s: float | None) -> float:
        """The caller's, or the default: no call is without one."""
        return self._default_timeout_s if timeout_s is None else timeout_s

    def start(
        self,
        kind: type[C],
        method: str,
        details: grpc.aio.ClientCallDetails,
        payload: bytes | None,
        deserialize: Deserializer | None,
        compression: grpc.Compression | None = None,
    ) -> C:
        """Make a call and send its opening; a call that cannot go out is already ended.

        Args:
            payload: the message, or None where a stream of them follows.
        """
        if self._closed:
            raise grpc.aio.UsageError("Channel is closed.")
        timeout_s = self.timeout_of(details.timeout)
        chosen = self.compression if compression is None else compression
        squeezing = chosen not in (None, grpc.Compression.NoCompression)
        headers = self._headers(details.metadata, streams=kind.streams, squeezing=squeezing)
        too_big = payload is not None and len(payload) > flow.MAX_MESSAGE_BYTES
        room = self.wire.max_payload_bytes - flow.HEADROOM_BYTES
        head = sum(len(key) + len(value) + 4 for key, value in headers) if headers else 0
        body, promoted = payload or b"", payload is None
        if payload is not None and squeezing and not too_big:
            packed = flow.squeeze(payload)
            if packed is not None and len(packed) + head <= room:
                headers.append((frames.ENCODING, frames.ZLIB))
                body = packed
        if len(body) + head > room:
            promoted = True
        if promoted:
            headers.append((frames.FRAMED, str(len(body))))
        subject, service = self._names(method)
        request = Request(
            subject,
            service,
            body,
            headers,
            deserialize,
            self._loop.time() + max(0.0, timeout_s),
            promoted=promoted and payload is not None,
            waits=bool(details.wait_for_ready),
            idempotent=not kind.streams and self.retries.covers(method),
            squeezing=squeezing,
        )
        call = kind(self, request)
        if timeout_s <= 0:
            call.finish(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
        elif too_big or head > room:
            limit = f"larger than {flow.MAX_MESSAGE_BYTES} bytes"
            call.finish(grpc.StatusCode.RESOURCE_EXHAUSTED, f"the request is {limit}")
        else:
            self._keep(call)
            self._send(call, timeout_s)
        return call

    def _names(self, method: str) -> tuple[str, str]:
        """The subject of a method, and its service."""
        known = self._known.get(method)
        if known is None:
            service = method.strip("/").partition("/")[0]
            known = self._known[method] = subjects.method_subject(self.root, method), service
        return known

    def _headers(
        self, metadata: Iterable[Any] | None, *, streams: bool, squeezing: bool
    ) -> list[frames.HeaderPair]:
        headers: list[frames.HeaderPair] = []
        if streams:
            window = flow.DEFAULT_WINDOW
            headers.append((frames.WINDOW, f"{window.messages},{window.size_bytes}"))
        if streams or squeezing:
            headers.append((frames.ACCEPTS, frames.ZLIB))
        given = frames.encode_metadata(metadata) if metadata else []
        headers += given
        if not any(key == trace.TRACEPARENT for key, _ in given):
            headers += trace.outgoing()
        return headers

    def _keep(self, call: MeshCall) -> None:
        self._calls[call.reply[self._skip :]] = weakref.ref(call) if call.droppable else call

    def _send(self, call: MeshCall, left_s: float | None = None) -> None:
        if call.done():
            return
        request = call.request
        if left_s is None:
            left_s = request.deadline - self._loop.time()
        timeout = _timeout_block(_rounded(max(1, round(left_s * 1e9))))
        block = frames.join_headers(timeout, request.headers) if request.headers else timeout
        body = b"" if request.promoted else request.payload
        try:
            self.wire.publish(request.subject, body, reply=call.reply, headers=block)
        except WireDown as down:
            call.fail(down.message, delivered=False)
            return
        self._presence.wake()
        if call.streams and self._beat_timer is None:
            self._beat_timer = self._loop.call_later(self._keepalive_s, self._beat)

    def _beat(self) -> None:
        self._beat_timer = None
        for call in list(self.live()):
            call.beat(KEEPALIVE_MISSES * self._keepalive_s)
        if self._calls and not self._closed:
            self._beat_timer = self._loop.call_later(self._keepalive_s, self._beat)

    def _on_delivery(self, delivery: Delivery) -> None:
        token = delivery.subject[self._skip :]
        call = self.find(token)
        if call is not None:
            call.on_delivery(delivery)
        elif self._presence.is_answer(token):
            try:
                self._presence.on_answer(token, delivery)
            except frames.BadFrame:
                self.dead_letters.count(MALFORMED)
        else:
            self.dead_letters.count(UNKNOWN_CALL)

    def _notify(self) -> None:
        self._changed.set()
        self._changed.clear()


@functools.lru_cache(maxsize=256)
def _timeout_block(span_ns: int) -> bytes:
    return frames.encode_headers([(frames.TIMEOUT, frames.encode_timeout(span_ns))])


def _rounded(span_ns: int) -> int:
    """Up to the next of about a thousand steps a decade: what is written becomes cacheable."""
    step: int = 10 ** max(0, len(str(span_ns)) - 4)
    return -(-span_ns // step) * step
