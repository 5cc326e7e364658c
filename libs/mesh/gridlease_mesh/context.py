"""The server's side of one call: what a servicer gets as ``context``."""

from __future__ import annotations

import asyncio
import collections
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import grpc
import grpc.aio

from gridlease_mesh import flow, frames
from gridlease_mesh.frames import Frame, FrameType, Grant, MetadataPair, Status
from gridlease_mesh.wire import Wire, WireDown

_LOG = logging.getLogger(__name__)


class Metadatum(NamedTuple):
    """One pair of invocation metadata, as interceptors expect it."""

    key: str
    value: str | bytes


class Opening(NamedTuple):
    """How a call came in."""

    method: str  # /package.Service/Method
    reply: str
    node: str  # the calling node, derived from the subject; "" for a service
    metadata: tuple[Metadatum, ...]
    deadline: float  # of the loop's clock, seconds
    credits: Grant | None  # of the client, where it wants a stream
    own_subject: str  # where the client reaches this call once it is accepted


class MeshContext(grpc.aio.ServicerContext[Any, Any]):
    """State of one call on the server, and its half of the framed protocol."""

    def __init__(self, wire: Wire, opening: Opening, *, framed: bool) -> None:
        self._wire = wire
        self.opening = opening
        self._loop = asyncio.get_running_loop()
        self.framed = framed
        self.task: asyncio.Task[None] | None = None
        self.serialize: Callable[[Any], bytes] | None = None
        self._code = grpc.StatusCode.OK
        self._details = ""
        self._initial: list[frames.HeaderPair] = []
        self._initial_sent = False
        self._trailing: tuple[MetadataPair, ...] = ()
        self._ended = False
        self._cancelled = False
        self._callbacks: list[Callable[[Any], None]] = []
        self._out = flow.Outbound(wire.max_payload_bytes)
        self._in = flow.Inbound()
        self._credits = flow.Credits(opening.credits or flow.DEFAULT_WINDOW)
        self._blocked: collections.deque[asyncio.Future[None]] = collections.deque()
        self.request: asyncio.Future[bytes] | None = None  # a request that comes in frames
        self.heard_at = self._loop.time()

    def node_id(self) -> str | None:
        """The node that calls, as the broker vouches for it; None for a service."""
        return self.opening.node or None

    # grpc.aio.ServicerContext

    async def read(self) -> NoReturn:
        raise grpc.aio.UsageError("the mesh does not carry streams of requests yet")

    async def write(self, message: Any) -> None:
        assert self.opening.credits is not None, "write() is for streams of answers"
        payload = self.serialize(message) if self.serialize else message
        if len(payload) > flow.MAX_MESSAGE_BYTES:
            await self.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"a message exceeds {flow.MAX_MESSAGE_BYTES} bytes",
            )
        while not self._credits.open:
            waiter = self._loop.create_future()
            self._blocked.append(waiter)
            await waiter
        await self.breathe()
        if self._ended:
            raise asyncio.CancelledError
        self._credits.take(len(payload))
        self._flush_initial()
        for part in self._out.message(payload):
            self._send(part)

    async def send_initial_metadata(self, initial_metadata: Iterable[Any]) -> None:
        if self._initial_sent:
            raise grpc.aio.UsageError("Send initial metadata failed: already sent")
        self._initial = frames.encode_metadata(initial_metadata)
        if self.opening.credits is not None:
            self._flush_initial(force=True)
        self._initial_sent = True

    async def abort(
        self,
        code: grpc.StatusCode,
        details: str = "",
        trailing_metadata: Iterable[Any] = (),
    ) -> NoReturn:
        if code is grpc.StatusCode.OK:
            raise grpc.aio.UsageError("abort() with OK is no abort")
        self._code, self._details = code, details
        if given := _pairs(trailing_metadata):
            self._trailing = given
        raise grpc.aio.AbortError(details)

    async def abort_with_status(self, status: grpc.Status) -> NoReturn:
        await self.abort(status.code, status.details, status.trailing_metadata or ())

    def set_trailing_metadata(self, trailing_metadata: Iterable[Any]) -> None:
        self._trailing = _pairs(trailing_metadata)

    def trailing_metadata(self) -> Any:
        return self._trailing

    def invocation_metadata(self) -> Any:
        return self.opening.metadata

    def set_code(self, code: grpc.StatusCode) -> None:
        self._code = code

    def code(self) -> grpc.StatusCode:
        return self._code

    def set_details(self, details: str) -> None:
        self._details = details

    def details(self) -> str:
        return self._details

    def set_compression(self, compression: grpc.Compression) -> None:
        """The mesh does not compress."""

    def disable_next_message_compression(self) -> None:
        """The mesh does not compress."""

    def peer(self) -> str:
        return f"nats:{self.opening.node or 'service'}:0"

    def peer_identities(self) -> Sequence[bytes] | None:
        return [self.opening.node.encode()] if self.opening.node else None

    def peer_identity_key(self) -> str | None:
        return "node" if self.opening.node else None

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        return {"node": [self.opening.node.encode()]} if self.opening.node else {}

    def time_remaining(self) -> float:
        return max(0.0, self.opening.deadline - self._loop.time())

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self._callbacks.append(callback)

    def cancelled(self) -> bool:
        return self._cancelled

    def done(self) -> bool:
        return self._ended

    # What the server calls.

    async def breathe(self) -> None:
        """Let the connection catch up before more is put into its buffer."""
        if self._wire.congested:
            await self._wire.flush()

    def accept(self) -> None:
        """Take the call: from now on the client speaks to us alone."""
        self.framed = True
        body = frames.encode_grant(flow.DEFAULT_WINDOW)
        self._send(self._out.frame(FrameType.ACCEPT, body))

    def on_frame(self, frame: Frame) -> None:
        """Take one frame of the client.

        Raises:
            Gap, TooBig, BadFrame: the call cannot go on.
        """
        self.heard_at = self._loop.time()
        self._in.check(frame)
        match frame.type:
            case FrameType.DATA:
                message = self._in.message(frame)
                if message is not None and self.request and not self.request.done():
                    self.request.set_result(message)
            case FrameType.WINDOW:
                self._credits.add(frames.decode_grant(frame.body))
                self._unblock()
            case FrameType.CANCEL:
                self.cancel()
            case FrameType.KEEPALIVE | FrameType.HALF_CLOSE:
                pass
            case FrameType.ACCEPT | FrameType.INITIAL | FrameType.TRAILERS:
                raise frames.BadFrame(f"a client does not send {frame.type.name}")

    def beat(self) -> None:
        """Tell the client of an accepted call that we live."""
        if self.framed and self._wire.connected:
            self._send(self._out.frame(FrameType.KEEPALIVE))

    def cancel(self) -> None:
        """The client has gone: stop the servicer and say no more."""
        self._cancelled = True
        self.fail(grpc.StatusCode.CANCELLED, "cancelled by the caller")

    def fail(self, code: grpc.StatusCode, details: str) -> None:
        """End the call from outside the servicer."""
        if self._ended:
            return
        self.end(Status(code.value[0], details, self._trailing))
        if self.task is not None:
            self.task.cancel()

    def finish(self, response: bytes | None) -> None:
        """The servicer has returned: send its answer and status."""
        code = self._code.value[0]
        if response is not None and len(response) > flow.MAX_MESSAGE_BYTES:
            response, code = None, grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
            self._details = f"the answer exceeds {flow.MAX_MESSAGE_BYTES} bytes"
        self.end(Status(code, self._details, self._trailing), response)

    def end(self, status: Status, response: bytes | None = None) -> None:
        """Send the last of the call, once."""
        if self._ended:
            return
        self._ended = True
        try:
            self._send_end(status, response if status.code == 0 else None)
        except WireDown:
            _LOG.info("an answer was lost with the connection: %s", self.opening.method)
        self._unblock(everything=True)
        for callback in self._callbacks:
            callback(self)

    # Inside.

    def _send_end(self, status: Status, response: bytes | None) -> None:
        pairs = frames.encode_status(status)
        initial = [(frames.INITIAL + key, value) for key, value in self._initial]
        block = frames.encode_headers(pairs + initial)
        size = len(response or b"") + len(block)
        small = size < self._wire.max_payload_bytes - flow.HEADROOM_BYTES
        if not self.framed and small:
            bare = status.code == 0 and not status.trailing and not initial
            headers = b"" if bare else block
            self._wire.publish(self.opening.reply, response or b"", headers=headers)
            return
        self._flush_initial()
        for part in self._out.message(response) if response is not None else ():
            self._send(part)
        self._send(self._out.frame(FrameType.TRAILERS, frames.encode_headers(pairs)))

    def _flush_initial(self, *, force: bool = False) -> None:
        if (self._initial and not self._initial_sent) or force:
            block = frames.encode_headers(self._initial)
            self._send(self._out.frame(FrameType.INITIAL, block))
            self._initial_sent = True

    def _send(self, frame: bytes) -> None:
        # A stream's client expects frames; a unary client must be told.
        mark = b"" if self.opening.credits else b"NATS/1.0\r\ngl-framed: 1\r\n\r\n"
        self._wire.publish(self.opening.reply, frame, reply=self.opening.own_subject, headers=mark)

    def _unblock(self, *, everything: bool = False) -> None:
        while self._blocked and (everything or self._credits.open):
            waiter = self._blocked.popleft()
            if not waiter.done():
                waiter.set_result(None)
                if not everything:
                    return


def _pairs(metadata: Iterable[Any] | None) -> tuple[MetadataPair, ...]:
    return tuple((key, value) for key, value in metadata or ())


def caller_node(context: object) -> str | None:
    """The node that makes this call, or None where a service does.

    Derived from the subject, which the broker only lets that node use; never from metadata.
    """
    return context.node_id() if isinstance(context, MeshContext) else None
