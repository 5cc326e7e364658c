"""The three kinds of call that are framed from the start: credits both ways, order checked.

A stream of answers that nobody holds any more is cancelled at once: leaving its ``async for``
and dropping the call is enough.
"""

from __future__ import annotations

import asyncio
import enum
import logging
from collections.abc import AsyncIterable, AsyncIterator, Callable, Generator, Iterable
from typing import Any

import grpc
import grpc.aio

from gridlease_mesh import flow, frames
from gridlease_mesh.calls import Abandoned, MeshCall
from gridlease_mesh.frames import Frame, FrameType
from gridlease_mesh.wire import Delivery, WireDown

_LOG = logging.getLogger(__name__)
FINISHED = "RPC already finished."
HALF_CLOSED = 'RPC is half closed after calling "done_writing".'
MIXED = "The iterator and read/write APIs may not be mixed on a single RPC."

Requests = AsyncIterable[Any] | Iterable[Any] | None
Serialize = Callable[[Any], bytes] | None


class Style(enum.Enum):
    """How a side is used: the two may not be mixed on one call."""

    ITERATOR = 1
    READ_WRITE = 2


class _StreamBase(MeshCall):
    """A call whose answer comes in frames."""

    streams = True

    def _take(self, delivery: Delivery) -> None:
        if delivery.headers:
            headers = frames.decode_headers(delivery.headers)
            if self._on_broker(headers):
                return
            if headers.get(frames.STATUS) is not None:
                self._on_bare(headers, delivery.payload)
                return
        self._on_frame(frames.decode_frame(delivery.payload), delivery.reply)


class Reader:
    """The iterator over a call's answers; it holds the call, the call does not hold it."""

    def __init__(self, call: Any) -> None:
        self._call = call

    def __aiter__(self) -> Reader:
        return self

    async def __anext__(self) -> Any:
        message = await self._call.next_message()
        if message is grpc.aio.EOF:
            raise StopAsyncIteration
        return message

    async def aclose(self) -> None:
        """Leave early."""
        self._call.cancel()


class _Reads(_StreamBase):
    """The half that reads a stream of answers."""

    droppable = True
    _read_style: Style | None = None

    def _renew(self) -> None:
        super()._renew()
        self._mailbox = flow.Mailbox()

    def __aiter__(self) -> AsyncIterator[Any]:
        self._use(Style.ITERATOR)
        return Reader(self)

    async def read(self) -> Any:
        if self._read_style is Style.ITERATOR:
            raise grpc.aio.UsageError(MIXED)
        self._use(Style.READ_WRITE)
        return await self.next_message()

    async def next_message(self) -> Any:
        """The next answer, or EOF; raises the status of a call that failed."""
        while not self._mailbox:
            if self.done():
                self.raise_for_status()
                return grpc.aio.EOF
            try:
                await self._sleep()
            except asyncio.CancelledError:
                self.cancel()
                raise
        raw, grant = self._mailbox.take()
        if grant is not None and not self.done() and self._peer and self._owner.wire.connected:
            self._send(self._framed().frame(FrameType.WINDOW, frames.encode_grant(grant)))
        return self._deserialize(raw)

    def finish(
        self,
        code: grpc.StatusCode,
        details: str = "",
        trailing: grpc.aio.Metadata | None = None,
    ) -> None:
        super().finish(code, details, trailing)
        if self._locally_cancelled:
            self._mailbox.clear()

    async def initial_metadata(self) -> grpc.aio.Metadata:
        while self._initial is None and not self.done() and not self._mailbox:
            await self._sleep()
        return self._initial or grpc.aio.Metadata()

    def _use(self, style: Style) -> None:
        if self._read_style not in (None, style):
            raise grpc.aio.UsageError(MIXED)
        self._read_style = style

    def _on_message(self, message: bytes) -> None:
        self._mailbox.put(message)
        self._wake_up()

    def __del__(self) -> None:
        if getattr(self, "_code", grpc.StatusCode.OK) is not None or self._loop.is_closed():
            return
        # Perhaps in another thread: the collector runs where it likes.
        subject, payload = self._cancelling()
        left = Abandoned(self.reply, subject, payload, self._timer)
        self._loop.call_soon_threadsafe(self._owner.abandon, left)


class _Writes(_StreamBase):
    """The half that writes a stream of questions."""

    _credits: flow.Credits | None = None
    _squeezing = False
    _half_closed = False
    _poller: asyncio.Task[None] | None = None

    def start_writing(self, requests: Requests, serialize: Serialize) -> None:
        """Take the messages from an iterator, or, without one, from ``write``."""
        self._serialize = serialize
        self._write_style = Style.READ_WRITE if requests is None else Style.ITERATOR
        if requests is not None and not self.done():
            self._poller = self._loop.create_task(self._consume(requests))

    async def write(self, request: Any) -> None:
        self._check_style()
        await self._write(request)

    async def done_writing(self) -> None:
        self._check_style()
        await self._done_writing()

    def finish(
        self,
        code: grpc.StatusCode,
        details: str = "",
        trailing: grpc.aio.Metadata | None = None,
    ) -> None:
        super().finish(code, details, trailing)
        poller, self._poller = self._poller, None
        if poller is not None and poller is not asyncio.current_task():
            poller.cancel()

    def _check_style(self) -> None:
        if self._write_style is not Style.READ_WRITE:
            raise grpc.aio.UsageError(MIXED)

    async def _consume(self, requests: AsyncIterable[Any] | Iterable[Any]) -> None:
        try:
            if isinstance(requests, AsyncIterable):
                async for request in requests:
                    await self._write(request)
            else:
                for request in requests:
                    await self._write(request)
            await self._done_writing()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            _LOG.debug("the call ended before its questions did: %s", self.request.subject)
        except asyncio.CancelledError:
            self.cancel()
            raise
        except Exception:  # noqa: BLE001 - the caller's iterator may raise anything
            _LOG.debug("the caller's iterator of questions failed", exc_info=True)
            self.cancel()

    async def _write(self, request: Any) -> None:
        if self.done():
            raise asyncio.InvalidStateError(FINISHED)
        if self._half_closed:
            raise asyncio.InvalidStateError(HALF_CLOSED)
        payload = self._serialize(request) if self._serialize else request
        if len(payload) > flow.MAX_MESSAGE_BYTES:
            most = f"larger than {flow.MAX_MESSAGE_BYTES} bytes"
            self._abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"a message is {most}")
        await self._until(lambda: self._credits is not None and self._credits.open)
        if self._owner.wire.congested:
            await self._breathe()
        self._raise_if_over()
        assert self._credits is not None
        self._credits.take(len(payload))
        try:
            for part in self._framed().message(payload, squeezing=self._squeezing):
                self._send(part)
        except WireDown as down:
            self.fail(down.message)
            self._raise_if_over()

    async def _done_writing(self) -> None:
        if self.done() or self._half_closed:
            return
        self._half_closed = True
        await self._until(lambda: bool(self._peer))
        if not self.done() and self._owner.wire.connected:
            self._send(self._framed().frame(FrameType.HALF_CLOSE))

    async def _breathe(self) -> None:
        try:
            await self._owner.wire.flush()
        except WireDown as down:
            self.fail(down.message)

    async def _until(self, ready: Callable[[], bool]) -> None:
        while not self.done() and not ready():
            try:
                await self._sleep()
            except asyncio.CancelledError:
                self.cancel()
                raise

    def _raise_if_over(self) -> None:
        if self.done():
            self.raise_for_status()
            raise asyncio.InvalidStateError(FINISHED)

    def _on_accept(self, frame: Frame) -> None:
        self._squeezing = self.request.squeezing and bool(frame.flags & frames.TAKES_ZLIB)
        self._credits = flow.Credits(frames.decode_grant(frame.body))
        self._wake_up()

    def _on_window(self, grant: frames.Grant) -> None:
        if self._credits is not None:
            self._credits.add(grant)
            self._wake_up()


class UnaryStreamCall(_Reads, grpc.aio.UnaryStreamCall[Any, Any]):
    """One message out, many back."""

    def _on_accept(self, frame: Frame) -> None:
        if self.request.promoted:
            self._send_promoted(frame)

    def _on_window(self, grant: frames.Grant) -> None:
        """One message needs no further credits."""


class StreamUnaryCall(_Writes, grpc.aio.StreamUnaryCall[Any, Any]):
    """Many out, one back."""

    _response: Any = None

    def __await__(self) -> Generator[Any, None, Any]:
        if not self._finished.done():
            try:
                yield from self._finished
            except asyncio.CancelledError:
                self.cancel()
                raise
        self.raise_for_status()
        return self._response

    def _on_message(self, message: bytes) -> None:
        try:
            self._response = self._deserialize(message)
        except Exception:  # noqa: BLE001 - the deserialiser may raise anything
            _LOG.warning("cannot parse the answer", extra={"subject": self.request.subject})
            self._abort(grpc.StatusCode.INTERNAL, "the answer cannot be parsed")


class StreamStreamCall(_Reads, _Writes, grpc.aio.StreamStreamCall[Any, Any]):
    """Many out, many back."""
