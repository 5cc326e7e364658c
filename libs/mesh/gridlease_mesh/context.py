"""The server's side of one call: what a servicer gets as ``context``."""

from __future__ import annotations

import asyncio
import collections
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import grpc
import grpc.aio

from gridlease_mesh import flow, frames
from gridlease_mesh.calls import CODES
from gridlease_mesh.frames import Frame, FrameType, Grant, MetadataPair, Status
from gridlease_mesh.wire import Wire, WireDown

_LOG = logging.getLogger(__name__)
_FINISHED = "RPC already finished."
_FRAMED_MARK = frames.encode_headers([(frames.FRAMED, "1")])


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
    takes_zlib: bool = False  # the client reads squeezed answers


class MeshContext(grpc.aio.ServicerContext[Any, Any]):
    """State of one call on the server, and its half of the framed protocol."""

    # Most calls are bare and short: what they do not use costs them nothing.
    _out: flow.Outbound = None  # type: ignore[assignment] # these four are there once framed
    _in: flow.Inbound = None  # type: ignore[assignment]
    _mailbox: flow.Mailbox = None  # type: ignore[assignment]
    _blocked: collections.deque[asyncio.Future[None]] = None  # type: ignore[assignment]
    _credits: flow.Credits | None = None
    _reader: asyncio.Future[None] | None = None
    task: asyncio.Task[None] | None = None
    timer: asyncio.TimerHandle | None = None
    forget: Callable[[MeshContext], None] | None = None
    running = False  # the task has begun, and will forget the call itself
    serialize: Callable[[Any], bytes] | None = None
    deserialize: Callable[[bytes], Any] | None = None
    sent_code = 0
    _code = grpc.StatusCode.OK
    _details = ""
    _initial: Sequence[frames.HeaderPair] = ()
    _initial_sent = False
    _trailing: tuple[MetadataPair, ...] = ()
    _squeezes_next = True
    _ended = _aborted = _cancelled = False
    _callbacks: list[Callable[[Any], None]] | None = None

    def __init__(
        self,
        wire: Wire,
        opening: Opening,
        *,
        framed: bool,
        payload: bytes | None,
        compression: grpc.Compression | None = None,
    ) -> None:
        """Take a call.

        Args:
            framed: it is accepted at once, and goes on in frames.
            payload: its one message, or None where messages come in frames.
        """
        self._wire = wire
        self.opening = opening
        self._loop = asyncio.get_running_loop()
        self.framed = framed
        self._compression = compression
        self._payload = payload
        self._half_closed = payload is not None
        self.started_at = self.heard_at = self._loop.time()
        if framed:
            self._make_framed()

    def _make_framed(self) -> None:
        self.framed = True
        self._out = flow.Outbound(self._wire.max_payload_bytes)
        self._in = flow.Inbound()
        self._mailbox = flow.Mailbox()
        self._blocked = collections.deque()
        self._credits = flow.Credits(self.opening.credits or flow.DEFAULT_WINDOW)

    def node_id(self) -> str | None:
        """The node that calls, as the broker vouches for it; None for a service."""
        return self.opening.node or None

    # grpc.aio.ServicerContext

    async def read(self) -> Any:
        """The next message of the client, or EOF."""
        raw = await self.next_request()
        if raw is None:
            return grpc.aio.EOF
        return self.deserialize(raw) if self.deserialize else raw

    async def write(self, message: Any) -> None:
        if self.opening.credits is None:
            raise grpc.aio.UsageError("write() is for streams of answers")
        if self._ended:
            self._raise_ended()
        payload = self.serialize(message) if self.serialize else message
        if len(payload) > flow.MAX_MESSAGE_BYTES:
            await self.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"a message exceeds {flow.MAX_MESSAGE_BYTES} bytes",
            )
        assert self._credits is not None
        while not self._credits.open and not self._ended:
            waiter = self._loop.create_future()
            self._blocked.append(waiter)
            await waiter
        await self.breathe()
        if self._ended:
            self._raise_ended()
        self._credits.take(len(payload))
        self._flush_initial()
        squeezing, self._squeezes_next = self._squeezing and self._squeezes_next, True
        for part in self._out.message(payload, squeezing=squeezing):
            self._send(part)

    async def send_initial_metadata(self, initial_metadata: Iterable[Any]) -> None:
        if self._initial_sent:
            raise grpc.aio.UsageError("Send initial metadata failed: already sent")
        if self._ended:
            self._raise_ended()
        self._initial = frames.encode_metadata(initial_metadata)
        if self.framed:
            self._flush_initial(force=True)
        self._initial_sent = True  # of a bare call: it goes with the answer

    async def abort(
        self,
        code: grpc.StatusCode,
        details: str = "",
        trailing_metadata: Iterable[Any] = (),
    ) -> NoReturn:
        if self._aborted:
            raise grpc.aio.UsageError("Abort already called!")
        if code is grpc.StatusCode.OK:
            code, details = grpc.StatusCode.UNKNOWN, "abort() with OK is no abort"
        self._aborted = True
        self._code, self._details = code, details or self._details
        if given := _pairs(trailing_metadata):
            self._trailing = given
        self.finish(None)
        raise grpc.aio.AbortError("Locally aborted.")

    async def abort_with_status(self, status: grpc.Status) -> NoReturn:
        await self.abort(status.code, status.details, status.trailing_metadata or ())

    def set_trailing_metadata(self, trailing_metadata: Iterable[Any]) -> None:
        self._trailing = _pairs(trailing_metadata)

    def trailing_metadata(self) -> Any:
        return self._trailing

    def invocation_metadata(self) -> Any:
        return self.opening.metadata

    def set_code(self, code: grpc.StatusCode) -> None:
        if not isinstance(code, grpc.StatusCode):
            code = CODES.get(code, grpc.StatusCode.UNKNOWN)
        self._code = code

    def code(self) -> grpc.StatusCode:
        return self._code

    def set_details(self, details: str) -> None:
        self._details = details

    def details(self) -> str:
        return self._details

    def set_compression(self, compression: grpc.Compression) -> None:
        """Squeeze what is worth it from now on, where the client reads that."""
        self._compression = compression

    def disable_next_message_compression(self) -> None:
        """Send the next message of a stream as it is."""
        self._squeezes_next = False

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
        if self._ended:
            callback(self)
        else:
            self._callbacks = [*(self._callbacks or ()), callback]

    def cancelled(self) -> bool:
        return self._cancelled

    def done(self) -> bool:
        return self._ended

    # What the server calls.

    @property
    def congested(self) -> bool:
        """Whether to ``breathe`` before more is sent."""
        return self._wire.congested

    async def breathe(self) -> None:
        """Let the connection catch up before more is put into its buffer."""
        if self._wire.congested:
            await self._wire.flush()

    def take_payload(self) -> bytes | None:
        """The one message of a bare call, if it has not been read."""
        payload, self._payload = self._payload, None
        return payload

    def accept(self) -> None:
        """Take the call: from now on the client speaks to us alone."""
        if not self.framed:
            self._make_framed()
        body = frames.encode_grant(flow.DEFAULT_WINDOW)
        self._send(self._out.frame(FrameType.ACCEPT, body, frames.TAKES_ZLIB))

    async def next_request(self) -> bytes | None:
        """The client's next message, still serialised; None after its last."""
        if self._payload is not None:
            payload, self._payload = self._payload, None
            return payload
        while not self._mailbox:
            if self._half_closed or self._ended:
                return None
            self._reader = self._reader or self._loop.create_future()
            await asyncio.shield(self._reader)
        raw, grant = self._mailbox.take()
        if grant is not None and not self._half_closed and not self._ended:
            self._send(self._out.frame(FrameType.WINDOW, frames.encode_grant(grant)))
        return raw

    async def requests(self) -> AsyncIterator[Any]:
        """The client's messages, as a servicer iterates over them."""
        while (message := await self.read()) is not grpc.aio.EOF:
            yield message

    def on_frame(self, frame: Frame) -> None:
        """Take one frame of the client.

        Raises:
            Gap, TooBig, BadFrame: the call cannot go on.
        """
        if not self.framed:
            raise frames.BadFrame("a frame for a call that has none")
        self.heard_at = self._loop.time()
        self._in.check(frame)
        match frame.type:
            case FrameType.DATA:
                message = self._in.message(frame)
                if message is not None and not self._half_closed:
                    self._mailbox.put(message)
                    self._wake_reader()
            case FrameType.HALF_CLOSE:
                self._half_closed = True
                self._wake_reader()
            case FrameType.WINDOW:
                assert self._credits is not None
                self._credits.add(frames.decode_grant(frame.body))
                self._unblock()
            case FrameType.CANCEL:
                self.cancel()
            case FrameType.KEEPALIVE:
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
        if self.forget is not None and not self.running:
            self.forget(self)

    def finish(self, response: bytes | None) -> None:
        """The servicer has returned: send its answer and status."""
        code = 0 if self._code is grpc.StatusCode.OK else self._code.value[0]
        if response is not None and len(response) > flow.MAX_MESSAGE_BYTES:
            response, code = None, grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
            self._details = f"the answer exceeds {flow.MAX_MESSAGE_BYTES} bytes"
        self.end(Status(code, self._details, self._trailing), response)

    def end(self, status: Status, response: bytes | None = None) -> None:
        """Send the last of the call, once."""
        if self._ended:
            return
        self._ended = True
        self.sent_code = status.code
        try:
            self._send_end(status, response if status.code == 0 else None)
        except WireDown:
            _LOG.info("an answer was lost with the connection: %s", self.opening.method)
        if self.framed:
            self._unblock(everything=True)
            self._wake_reader()
        if self._callbacks:
            callbacks, self._callbacks = self._callbacks, None
            for callback in callbacks:
                callback(self)

    # Inside.

    @property
    def _squeezing(self) -> bool:
        wanted = self._compression not in (None, grpc.Compression.NoCompression)
        return wanted and self.opening.takes_zlib

    def _send_end(self, status: Status, response: bytes | None) -> None:
        if not self.framed and self._send_bare(status, response):
            return
        if not self.framed:
            self.accept()
            self._initial_sent = False
        self._flush_initial()
        if response is not None:
            for part in self._out.message(response, squeezing=self._squeezing):
                self._send(part)
        pairs = frames.encode_status(status)
        self._send(self._out.frame(FrameType.TRAILERS, frames.encode_headers(pairs)))

    def _send_bare(self, status: Status, response: bytes | None) -> bool:
        """Answer in one message, if it fits."""
        body, block = response or b"", b""
        packed = flow.squeeze(body) if self._squeezing else None
        if status.code or status.trailing or self._initial or packed is not None:
            pairs = frames.encode_status(status)
            pairs += [(frames.INITIAL + key, value) for key, value in self._initial]
            if packed is not None:
                pairs.append((frames.ENCODING, frames.ZLIB))
                body = packed
            block = frames.encode_headers(pairs)
        if len(body) + len(block) > self._wire.max_payload_bytes - flow.HEADROOM_BYTES:
            return False
        self._wire.publish(self.opening.reply, body, headers=block)
        return True

    def _flush_initial(self, *, force: bool = False) -> None:
        if (self._initial and not self._initial_sent) or force:
            self._initial_sent = True
            block = frames.encode_headers(self._initial)
            self._send(self._out.frame(FrameType.INITIAL, block))

    def _send(self, frame: bytes) -> None:
        # A stream's client expects frames; a unary client must be told.
        mark = b"" if self.opening.credits else _FRAMED_MARK
        self._wire.publish(self.opening.reply, frame, reply=self.opening.own_subject, headers=mark)

    def _raise_ended(self) -> NoReturn:
        if self._cancelled:
            raise asyncio.CancelledError
        raise asyncio.InvalidStateError(_FINISHED)

    def _wake_reader(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None and not reader.done():
            reader.set_result(None)

    def _unblock(self, *, everything: bool = False) -> None:
        while self._blocked and (everything or (self._credits is not None and self._credits.open)):
            waiter = self._blocked.popleft()
            if not waiter.done():
                waiter.set_result(None)
                if not everything:
                    return


def _pairs(metadata: Iterable[Any] | None) -> tuple[MetadataPair, ...]:
    """Metadata as plain pairs; raises ValueError where it could not travel."""
    pairs = tuple((key, value) for key, value in metadata or ())
    frames.encode_metadata(pairs)
    return pairs


def caller_node(context: object) -> str | None:
    """The node that makes this call, or None where a service does.

    Derived from the subject, which the broker only lets that node use; never from metadata.
    """
    return context.node_id() if isinstance(context, MeshContext) else None
