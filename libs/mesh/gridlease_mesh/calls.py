"""The client's side of a call: what every call shares, and the unary call.

A unary call starts bare (one message each way) and goes framed when either message is larger
than the broker takes, or the servicer sends its initial metadata early. ``streams`` has the
calls that are framed from the start. All satisfy the call types of ``grpc.aio``.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import Callable, Generator
from typing import Any, NamedTuple, Protocol

import grpc
import grpc.aio

from gridlease_mesh import flow, frames
from gridlease_mesh.frames import Frame, FrameType, Headers, Status
from gridlease_mesh.wire import Delivery, Wire, WireDown

_LOG = logging.getLogger(__name__)
CODES = {code.value[0]: code for code in grpc.StatusCode}
CANCELLED = "Locally cancelled by application!"
KEEPALIVE_MISSES = 3


class Request(NamedTuple):
    """What a call sends: where to, the serialised message, its headers, the answer's type."""

    subject: str
    service: str  # package.Service
    payload: bytes
    headers: list[frames.HeaderPair]  # without the timeout
    deserialize: Callable[[bytes], Any] | None
    deadline: float  # of the loop's clock, seconds
    promoted: bool = False  # the message goes in frames, once a server has accepted
    waits: bool = False  # wait_for_ready: nobody there is no end
    idempotent: bool = False  # may be made again after UNAVAILABLE
    squeezing: bool = False  # the caller wants compression


class Owner(Protocol):
    """The channel, as far as a call knows it."""

    wire: Wire
    root: str

    def new_reply(self) -> str:
        """A fresh subject for the answers of one attempt."""
        ...

    def forget(self, call: MeshCall) -> None:
        """The call has ended; no more answers are for it."""
        ...

    def try_again(self, call: MeshCall, *, delivered: bool) -> bool:
        """Whether the call will be made again: it has failed, ``delivered`` or not."""
        ...

    def succeeded(self, call: MeshCall) -> None:
        """The call ended OK."""
        ...

    def ask_about(self, call: MeshCall) -> None:
        """Find out now which instance has the call."""
        ...

    def abandon(self, call: Abandoned) -> None:
        """A stream that nobody holds any more: cancel it."""
        ...


class Abandoned(NamedTuple):
    """What is left to do for a call that was dropped."""

    reply: str
    subject: str
    payload: bytes
    timer: asyncio.TimerHandle


def _expire(reference: weakref.ref[MeshCall]) -> None:
    call = reference()
    if call is not None:
        call.finish(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")


class MeshCall(grpc.aio.Call):
    """State that all kinds of call share."""

    streams = False  # the answer comes in frames
    droppable = False  # cancelled when nobody holds it any more
    # Most calls are bare and short: what they do not use costs them nothing.
    _out: flow.Outbound = None  # type: ignore[assignment] # these two are there once framed
    _in: flow.Inbound = None  # type: ignore[assignment]
    _code: grpc.StatusCode | None = None
    _details = ""
    _initial: grpc.aio.Metadata | None = None
    _trailing: grpc.aio.Metadata | None = None
    _callbacks: list[Callable[[Any], None]] | None = None
    _locally_cancelled = False
    _wake: asyncio.Future[None] | None = None
    attempts = 0

    def __init__(self, owner: Owner, request: Request) -> None:
        self._owner = owner
        self.request = request
        self._loop = asyncio.get_running_loop()
        self._finished: asyncio.Future[None] = self._loop.create_future()
        self._timer = self._loop.call_at(request.deadline, _expire, weakref.ref(self))
        self._renew()

    def _renew(self) -> None:
        """Start the state of one attempt."""
        self.reply = self._owner.new_reply()
        self.attempts += 1
        self._peer = ""  # the server's own subject for this call, once accepted
        self.instance = ""  # where its server is asked about its calls, once known
        self.denied_at: float | None = None  # another instance has said that it has not this call
        self._out = self._in = None  # type: ignore[assignment]
        self.started_at = self.heard_at = self._loop.time()

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
            self._callbacks = [*(self._callbacks or ()), callback]

    def cancel(self) -> bool:
        if self.done():
            return False
        self._locally_cancelled = True
        self._send_cancel()
        self.finish(grpc.StatusCode.CANCELLED, CANCELLED)
        return True

    async def initial_metadata(self) -> grpc.aio.Metadata:
        while self._initial is None and not self.done():
            await self._sleep()
        return self._initial or grpc.aio.Metadata()

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        await self._until_done()
        return self._trailing or grpc.aio.Metadata()

    async def code(self) -> grpc.StatusCode:
        await self._until_done()
        assert self._code is not None
        return self._code

    async def details(self) -> str:
        await self._until_done()
        return self._details

    async def debug_error_string(self) -> str:
        return f"{await self.code()}: {await self.details()} [{self.request.subject}]"

    async def wait_for_connection(self) -> None:
        """Wait until an instance has the call; raises its status where none will."""
        while not self.done() and not self.instance:
            self._owner.ask_about(self)
            await self._sleep()
        if self.done():
            self.raise_for_status()

    # What the channel calls.

    def on_delivery(self, delivery: Delivery) -> None:
        """Take one message of the server, or the broker's word that there is none."""
        self.heard_at = self._loop.time()
        try:
            self._take(delivery)
        except flow.Gap as gap:
            self._abort(grpc.StatusCode.DATA_LOSS, f"the broker lost part of the answer: {gap}")
        except flow.TooBig as error:
            self._abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
        except frames.BadFrame as error:
            self._abort(grpc.StatusCode.INTERNAL, f"the answer is malformed: {error}")
        except WireDown as down:
            self.fail(down.message)

    def beat(self, silence_s: float) -> None:
        """Prove that we live, and see whether the server does; only accepted calls have a peer."""
        if not self._peer:
            return
        if self._loop.time() - self.heard_at > silence_s:
            self._send_cancel()
            self.fail("the server went silent")
        elif self._owner.wire.connected:
            self._send(self._framed().frame(FrameType.KEEPALIVE))

    def claimed(self, instance: str) -> None:
        """An instance has this call."""
        self.instance = instance
        self.denied_at = None
        self._wake_up()

    def start_over(self) -> None:
        """Make the call again under a new reply subject."""
        self._renew()

    def fail(self, details: str, *, delivered: bool = True) -> None:
        """End UNAVAILABLE, unless the call may be made again."""
        if not self.done() and not self._owner.try_again(self, delivered=delivered):
            self.finish(grpc.StatusCode.UNAVAILABLE, details)

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
        self._trailing = trailing
        self._timer.cancel()
        self._owner.forget(self)
        if not self._finished.done():
            self._finished.set_result(None)
        if self._callbacks:
            callbacks, self._callbacks = self._callbacks, None
            for callback in callbacks:
                self._loop.call_soon(callback, self)
        if self._wake is not None:
            self._wake_up()

    def raise_for_status(self) -> None:
        """Raise what this end means to a caller, if it is not OK."""
        if self._locally_cancelled:
            raise asyncio.CancelledError
        assert self._code is not None
        if self._code is not grpc.StatusCode.OK:
            raise grpc.aio.AioRpcError(
                self._code,
                self._initial or grpc.aio.Metadata(),
                self._trailing or grpc.aio.Metadata(),
                details=self._details,
                debug_error_string=f"{self.request.subject}: {self._details}",
            )

    # Inside.

    def _take(self, delivery: Delivery) -> None:
        raise NotImplementedError

    def _on_message(self, message: bytes) -> None:
        raise NotImplementedError

    def _on_accept(self, frame: Frame) -> None:
        raise NotImplementedError

    def _on_window(self, grant: frames.Grant) -> None:
        raise NotImplementedError

    def _deserialize(self, message: bytes) -> Any:
        return self.request.deserialize(message) if self.request.deserialize else message

    def _framed(self) -> flow.Outbound:
        """The state of a framed call, made when it is first needed."""
        if self._out is None:
            self._out = flow.Outbound(self._owner.wire.max_payload_bytes)
            self._in = flow.Inbound()
        return self._out

    def _abort(self, code: grpc.StatusCode, details: str) -> None:
        self._send_cancel()
        self.finish(code, details)

    def _send(self, frame: bytes) -> None:
        """To the call's own server; its death shows as the broker's 503 at our reply subject."""
        self._owner.wire.publish(self._peer, frame, reply=self.reply)

    def _cancelling(self) -> tuple[str, bytes]:
        if self._peer:
            return self._peer, self._framed().frame(FrameType.CANCEL)
        return f"{self._owner.root}._cancel", self.reply.encode()

    def _send_cancel(self) -> None:
        wire = self._owner.wire
        if wire.connected:
            wire.publish(*self._cancelling())

    def _end(self, status: Status) -> None:
        code = CODES.get(status.code, grpc.StatusCode.UNKNOWN)
        self.finish(code, status.message, grpc.aio.Metadata(*status.trailing))

    def _on_broker(self, headers: Headers) -> bool:
        """Whether the broker itself says that nobody hears what we sent."""
        if headers.code != frames.NO_RESPONDERS:
            return False
        if self._peer:
            self.fail("the instance that had the call is gone")
        else:
            self.fail("no server answers to this name", delivered=False)
        return True

    def _on_bare(self, headers: Headers, payload: bytes) -> None:
        initial = [
            (key.removeprefix(frames.INITIAL), value)
            for key, value in headers.pairs
            if key.startswith(frames.INITIAL)
        ]
        self._initial = grpc.aio.Metadata(*frames.decode_metadata(initial))
        ended = headers.get(frames.STATUS) is not None
        status = frames.decode_status(headers.pairs) if ended else Status(0, "", ())
        if status.code == 0:
            encoding = headers.get(frames.ENCODING)
            if encoding not in (None, frames.ZLIB):
                raise frames.BadFrame(f"encoding {encoding!r} is unknown")
            self._on_message(flow.unsqueeze(payload) if encoding else payload)
        self._end(status)

    def _on_frame(self, frame: Frame, reply: str) -> None:
        self._framed()
        self._in.check(frame)
        match frame.type:
            case FrameType.ACCEPT:
                if self._peer or not reply.startswith(f"{self._owner.root}._call."):
                    raise frames.BadFrame("accepted from a foreign subject")
                self._peer = reply
                self.claimed(reply.rpartition(".")[0])
                self._on_accept(frame)
            case FrameType.INITIAL:
                pairs = frames.decode_headers(frame.body).pairs
                self._initial = grpc.aio.Metadata(*frames.decode_metadata(pairs))
                self._wake_up()
            case FrameType.DATA:
                message = self._in.message(frame)
                if message is not None:
                    self._on_message(message)
            case FrameType.TRAILERS:
                self._end(frames.decode_status(frames.decode_headers(frame.body).pairs))
            case FrameType.WINDOW:
                self._on_window(frames.decode_grant(frame.body))
            case FrameType.KEEPALIVE:
                pass
            case FrameType.HALF_CLOSE | FrameType.CANCEL:
                raise frames.BadFrame(f"a server does not send {frame.type.name}")

    def _send_promoted(self, frame: Frame) -> None:
        """The one message of a call whose question did not fit into its opening."""
        out, takes = self._framed(), bool(frame.flags & frames.TAKES_ZLIB)
        squeezing = self.request.squeezing and takes
        for part in out.message(self.request.payload, squeezing=squeezing):
            self._send(part)
        self._send(out.frame(FrameType.HALF_CLOSE))

    async def _until_done(self) -> None:
        while self._code is None:
            await self._sleep()

    async def _sleep(self) -> None:
        """Wait for the next thing that happens to this call."""
        if self._wake is None or self._wake.done():
            self._wake = self._loop.create_future()
        await asyncio.shield(self._wake)

    def _wake_up(self) -> None:
        wake, self._wake = self._wake, None
        if wake is not None and not wake.done():
            wake.set_result(None)


class UnaryCall(MeshCall, grpc.aio.UnaryUnaryCall[Any, Any]):
    """One message each way."""

    _response: Any = None

    def __await__(self) -> Generator[Any, None, Any]:
        if not self._finished.done():
            try:
                yield from self._finished
            except asyncio.CancelledError:
                self.cancel()
                raise
        if self._code is not grpc.StatusCode.OK:
            self.raise_for_status()
        return self._response

    def _take(self, delivery: Delivery) -> None:
        if not delivery.headers:  # the answer of most calls: bare, OK, nothing else to say
            self._on_message(delivery.payload)
            self.finish(grpc.StatusCode.OK)
            return
        headers = frames.decode_headers(delivery.headers)
        if headers.get(frames.FRAMED) is not None:
            self._on_frame(frames.decode_frame(delivery.payload), delivery.reply)
        elif not self._on_broker(headers):
            self._on_bare(headers, delivery.payload)

    def finish(
        self,
        code: grpc.StatusCode,
        details: str = "",
        trailing: grpc.aio.Metadata | None = None,
    ) -> None:
        if code is grpc.StatusCode.OK and self.request.idempotent:
            self._owner.succeeded(self)
        super().finish(code, details, trailing)

    def _on_accept(self, frame: Frame) -> None:
        if self.request.promoted:
            self._send_promoted(frame)

    def _on_window(self, grant: frames.Grant) -> None:
        """One message needs no further credits."""

    def _on_message(self, message: bytes) -> None:
        try:
            self._response = self._deserialize(message)
        except Exception:  # noqa: BLE001 - the deserialiser may raise anything
            _LOG.warning("cannot parse the answer", extra={"subject": self.request.subject})
            self.finish(grpc.StatusCode.INTERNAL, "the answer cannot be parsed")
