"""The client's side of a call: what a stub's method returns.

``UnaryCall`` starts bare (one message each way) and goes framed when either message is larger
than the broker takes; ``StreamCall`` is framed from the start. Both satisfy the call types of
``grpc.aio``.
"""

from __future__ import annotations

import asyncio
import collections
import logging
from collections.abc import AsyncIterator, Callable, Generator
from typing import Any, NamedTuple, Protocol

import grpc
import grpc.aio

from gridlease_mesh import flow, frames
from gridlease_mesh.frames import Frame, FrameType, Headers, Status
from gridlease_mesh.wire import Delivery, Wire, WireDown

_LOG = logging.getLogger(__name__)
_CODES = {code.value[0]: code for code in grpc.StatusCode}
_CANCELLED = "Locally cancelled by application!"
KEEPALIVE_MISSES = 3


class Request(NamedTuple):
    """What a call sends: where to, the serialised message, its headers, the answer's type."""

    subject: str
    reply: str
    cancel_subject: str
    payload: bytes
    headers: list[frames.HeaderPair]
    deserialize: Callable[[bytes], Any] | None
    deadline: float  # of the loop's clock, seconds


class Owner(Protocol):
    """The channel, as far as a call knows it."""

    wire: Wire

    def forget(self, call: MeshCall) -> None:
        """The call has ended; no more replies are for it."""
        ...


class MeshCall(grpc.aio.Call):
    """State that the two kinds of call share."""

    def __init__(self, owner: Owner, request: Request, *, promoted: bool) -> None:
        self._owner = owner
        self._promoted = promoted  # the request goes in frames, once a server has accepted
        self.request = request
        self._loop = asyncio.get_running_loop()
        self._finished: asyncio.Future[None] = self._loop.create_future()
        self._code: grpc.StatusCode | None = None
        self._details = ""
        self._initial: grpc.aio.Metadata | None = None
        self._trailing = grpc.aio.Metadata()
        self._callbacks: list[Callable[[Any], None]] = []
        self._peer = ""  # the server's own subject for this call, once accepted
        self._locally_cancelled = False
        self._out = flow.Outbound(owner.wire.max_payload_bytes)
        self._in = flow.Inbound()
        self._heard_at = self._loop.time()
        self._timer = self._loop.call_at(request.deadline, self._expire)

    # What users call.

    def done(self) -> bool:
        return self._code is not None

    def cancelled(self) -> bool:
        return self._code is grpc.StatusCode.CANCELLED

    def time_remaining(self) -> float | None:
        return max(0.0, self.request.deadline - self._loop.time())

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        if self.done():
            callback(self)
        else:
            self._callbacks.append(callback)

    def cancel(self) -> bool:
        if self.done():
            return False
        self._locally_cancelled = True
        self._send_cancel()
        self.finish(grpc.StatusCode.CANCELLED, _CANCELLED)
        return True

    async def initial_metadata(self) -> grpc.aio.Metadata:
        await asyncio.shield(self._finished)
        return self._initial or grpc.aio.Metadata()

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        await asyncio.shield(self._finished)
        return self._trailing

    async def code(self) -> grpc.StatusCode:
        await asyncio.shield(self._finished)
        assert self._code is not None
        return self._code

    async def details(self) -> str:
        await asyncio.shield(self._finished)
        return self._details

    async def debug_error_string(self) -> str:
        return f"{await self.code()}: {await self.details()} [{self.request.subject}]"

    async def wait_for_connection(self) -> None:
        if self.done():
            self.raise_for_status()

    # What the channel calls.

    def on_delivery(self, delivery: Delivery) -> None:
        """Take one message of the server, or the broker's word that there is none."""
        self._heard_at = self._loop.time()
        try:
            headers = frames.decode_headers(delivery.headers)
            if headers.code == frames.NO_RESPONDERS:
                self.finish(grpc.StatusCode.UNAVAILABLE, "no server answers to this name")
            elif headers.get(frames.STATUS) is not None:
                self._on_bare(headers, delivery.payload)
            elif self._expects_frame(headers):
                self._on_frame(frames.decode_frame(delivery.payload), delivery.reply)
            else:
                self._on_bare(headers, delivery.payload)
        except flow.Gap as gap:
            self._abort(grpc.StatusCode.DATA_LOSS, f"the broker lost part of the answer: {gap}")
        except flow.TooBig as error:
            self._abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
        except frames.BadFrame as error:
            self._abort(grpc.StatusCode.INTERNAL, f"the answer is malformed: {error}")
        except WireDown as down:
            self.finish(grpc.StatusCode.UNAVAILABLE, down.message)

    def beat(self, interval_s: float) -> None:
        """Prove that we live, and see whether the server does; only accepted calls have a peer."""
        if not self._peer:
            return
        if self._loop.time() - self._heard_at > KEEPALIVE_MISSES * interval_s:
            self._abort(grpc.StatusCode.UNAVAILABLE, "the server went silent")
        elif self._owner.wire.connected:
            self._owner.wire.publish(self._peer, self._out.frame(FrameType.KEEPALIVE))

    def finish(
        self,
        code: grpc.StatusCode,
        details: str = "",
        trailing: grpc.aio.Metadata | None = None,
    ) -> None:
        """End the call, once; later ends are ignored."""
        if self._code is not None:
            return
        self._code, self._details = code, details
        if trailing is not None:
            self._trailing = trailing
        self._timer.cancel()
        self._owner.forget(self)
        if not self._finished.done():
            self._finished.set_result(None)
        for callback in self._callbacks:
            callback(self)
        self._callbacks.clear()

    def raise_for_status(self) -> None:
        """Raise what this end means to a caller, if it is not OK."""
        if self._locally_cancelled:
            raise asyncio.CancelledError
        assert self._code is not None
        if self._code is not grpc.StatusCode.OK:
            raise grpc.aio.AioRpcError(
                self._code,
                self._initial or grpc.aio.Metadata(),
                self._trailing,
                details=self._details,
                debug_error_string=f"{self.request.subject}: {self._details}",
            )

    # Inside.

    def _expects_frame(self, headers: Headers) -> bool:
        raise NotImplementedError

    def _on_message(self, message: bytes) -> None:
        raise NotImplementedError

    def _deserialize(self, message: bytes) -> Any:
        return self.request.deserialize(message) if self.request.deserialize else message

    def _expire(self) -> None:
        self.finish(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")

    def _abort(self, code: grpc.StatusCode, details: str) -> None:
        self._send_cancel()
        self.finish(code, details)

    def _send_cancel(self) -> None:
        wire = self._owner.wire
        if not wire.connected:
            return
        if self._peer:
            wire.publish(self._peer, self._out.frame(FrameType.CANCEL))
        else:
            wire.publish(self.request.cancel_subject, self.request.reply.encode())

    def _end(self, status: Status) -> None:
        code = _CODES.get(status.code, grpc.StatusCode.UNKNOWN)
        self.finish(code, status.message, grpc.aio.Metadata(*status.trailing))

    def _on_bare(self, headers: Headers, payload: bytes) -> None:
        initial = [
            (key.removeprefix(frames.INITIAL), value)
            for key, value in headers.pairs
            if key.startswith(frames.INITIAL)
        ]
        self._initial = grpc.aio.Metadata(*frames.decode_metadata(initial))
        status = frames.decode_status(headers.pairs) if headers.pairs else Status(0, "", ())
        if status.code == 0:
            self._on_message(payload)
        self._end(status)

    def _on_frame(self, frame: Frame, reply: str) -> None:
        self._in.check(frame)
        match frame.type:
            case FrameType.ACCEPT:
                self._peer = reply
                self._on_accept()
            case FrameType.INITIAL:
                pairs = frames.decode_headers(frame.body).pairs
                self._initial = grpc.aio.Metadata(*frames.decode_metadata(pairs))
            case FrameType.DATA:
                message = self._in.message(frame)
                if message is not None:
                    self._on_message(message)
            case FrameType.TRAILERS:
                self._end(frames.decode_status(frames.decode_headers(frame.body).pairs))
            case FrameType.KEEPALIVE | FrameType.WINDOW:
                pass  # the client sends one message: it needs no further credits
            case FrameType.HALF_CLOSE | FrameType.CANCEL:
                raise frames.BadFrame(f"a server does not send {frame.type.name}")

    def _on_accept(self) -> None:
        if self._promoted:
            for part in self._out.message(self.request.payload):
                self._owner.wire.publish(self._peer, part)


class UnaryCall(MeshCall, grpc.aio.UnaryUnaryCall[Any, Any]):
    """One message each way."""

    def __init__(self, owner: Owner, request: Request, *, promoted: bool) -> None:
        super().__init__(owner, request, promoted=promoted)
        self._response: Any = None

    def __await__(self) -> Generator[Any, None, Any]:
        if not self._finished.done():
            try:
                yield from self._finished
            except asyncio.CancelledError:
                self.cancel()
                raise
        self.raise_for_status()
        return self._response

    def _expects_frame(self, headers: Headers) -> bool:
        return headers.get(frames.FRAMED) is not None

    def _on_message(self, message: bytes) -> None:
        try:
            self._response = self._deserialize(message)
        except Exception:  # noqa: BLE001 - the deserialiser may raise anything
            _LOG.warning("cannot parse the answer", extra={"subject": self.request.subject})
            self.finish(grpc.StatusCode.INTERNAL, "the answer cannot be parsed")


class StreamCall(MeshCall, grpc.aio.UnaryStreamCall[Any, Any]):
    """One message out, many back, with credits."""

    def __init__(self, owner: Owner, request: Request, *, promoted: bool) -> None:
        super().__init__(owner, request, promoted=promoted)
        self._queue: collections.deque[bytes] = collections.deque()
        self._consumed = flow.Consumed(flow.DEFAULT_WINDOW)
        self._wake: asyncio.Future[None] | None = None
        self._iterator: AsyncIterator[Any] | None = None

    def __aiter__(self) -> AsyncIterator[Any]:
        if self._iterator is None:
            self._iterator = self._messages()
        return self._iterator

    async def _messages(self) -> AsyncIterator[Any]:
        while (message := await self.read()) is not grpc.aio.EOF:
            yield message

    async def read(self) -> Any:
        while not self._queue:
            if self.done():
                self.raise_for_status()
                return grpc.aio.EOF
            self._wake = self._wake or self._loop.create_future()
            try:
                await asyncio.shield(self._wake)
            except asyncio.CancelledError:
                self.cancel()
                raise
        raw = self._queue.popleft()
        grant = self._consumed.take(len(raw))
        if grant is not None and not self.done() and self._peer and self._owner.wire.connected:
            body = frames.encode_grant(grant)
            self._owner.wire.publish(self._peer, self._out.frame(FrameType.WINDOW, body))
        return self._deserialize(raw)

    async def initial_metadata(self) -> grpc.aio.Metadata:
        while self._initial is None and not self.done() and not self._queue:
            self._wake = self._wake or self._loop.create_future()
            await asyncio.shield(self._wake)
        return self._initial or grpc.aio.Metadata()

    def finish(
        self,
        code: grpc.StatusCode,
        details: str = "",
        trailing: grpc.aio.Metadata | None = None,
    ) -> None:
        super().finish(code, details, trailing)
        if self._locally_cancelled:
            self._queue.clear()
        self._wake_reader()

    def _expects_frame(self, headers: Headers) -> bool:
        return headers is not None

    def _on_frame(self, frame: Frame, reply: str) -> None:
        super()._on_frame(frame, reply)
        if frame.type is FrameType.INITIAL:
            self._wake_reader()

    def _on_message(self, message: bytes) -> None:
        self._queue.append(message)
        self._wake_reader()

    def _wake_reader(self) -> None:
        wake, self._wake = self._wake, None
        if wake is not None and not wake.done():
            wake.set_result(None)
