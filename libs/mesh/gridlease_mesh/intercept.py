"""Client interceptors on the mesh: the same classes that ``grpc.aio`` takes, for every arity."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Sequence
from typing import Any

import grpc
import grpc.aio

from gridlease_mesh.calls import CANCELLED
from gridlease_mesh.streams import FINISHED, HALF_CLOSED, MIXED, Reader, Requests

Start = Callable[[grpc.aio.ClientCallDetails, Any], Any]


class _Ready:
    """The call of an interceptor that answered by itself."""

    def __init__(self, response: Any) -> None:
        self._response = response

    def __await__(self) -> Generator[Any, None, Any]:
        yield from ()
        return self._response

    def done(self) -> bool:
        return True

    def cancelled(self) -> bool:
        return False

    def cancel(self) -> bool:
        return False

    def time_remaining(self) -> float | None:
        return None

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        callback(self)

    async def wait_for_connection(self) -> None:
        """There is nothing to wait for."""

    async def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.OK

    async def details(self) -> str:
        return ""

    async def initial_metadata(self) -> grpc.aio.Metadata:
        return grpc.aio.Metadata()

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        return grpc.aio.Metadata()


class _Iterated:
    """A call whose answers an interceptor passes on through an iterator of its own."""

    def __init__(self, call: Any, answers: Any) -> None:
        self._call = call
        self._answers = answers

    def __aiter__(self) -> Any:
        return aiter(self._answers)

    async def read(self) -> Any:
        try:
            return await anext(aiter(self._answers))
        except StopAsyncIteration:
            return grpc.aio.EOF

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)


async def _run(
    interceptors: Sequence[Any],
    method_name: str,
    start: Start,
    details: grpc.aio.ClientCallDetails,
    request: Any,
) -> Any:
    started: Any = None

    async def step(rest: Sequence[Any], details: grpc.aio.ClientCallDetails, request: Any) -> Any:
        nonlocal started
        if not rest:
            started = start(details, request)
            return started
        onward = functools.partial(step, rest[1:])
        answer = await getattr(rest[0], method_name)(onward, details, request)
        if hasattr(answer, "trailing_metadata"):
            return answer
        if hasattr(answer, "__aiter__"):
            return _Iterated(started or _Ready(None), answer)
        return _Ready(answer)

    return await step(interceptors, details, request)


class _Intercepted(grpc.aio.Call):
    """A call that is still being decided by interceptors, or is theirs."""

    def __init__(self, running: Coroutine[Any, Any, Any]) -> None:
        self._task: asyncio.Task[Any] = asyncio.ensure_future(running)
        self._task.add_done_callback(self._on_decided)
        self._callbacks: list[Callable[[Any], None]] = []

    def _on_decided(self, task: asyncio.Task[Any]) -> None:
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            self._attach(task, callback)

    def _attach(self, task: asyncio.Task[Any], callback: Callable[[Any], None]) -> None:
        call = None if task.cancelled() or task.exception() else task.result()
        if call is None or not hasattr(call, "add_done_callback"):
            callback(self)
        else:
            call.add_done_callback(lambda _call: callback(self))

    def _decided(self) -> Any:
        done = self._task.done() and not self._task.cancelled() and not self._task.exception()
        return self._task.result() if done else None

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        if self._task.done():
            self._attach(self._task, callback)
        else:
            self._callbacks.append(callback)

    def done(self) -> bool:
        call = self._decided()
        return bool(call.done()) if call is not None else self._task.done()

    def cancelled(self) -> bool:
        call = self._decided()
        return bool(call.cancelled()) if call is not None else self._task.cancelled()

    def cancel(self) -> bool:
        call = self._decided()
        return bool(call.cancel()) if call is not None else self._task.cancel()

    def time_remaining(self) -> float | None:
        call = self._decided()
        return call.time_remaining() if call is not None else None

    async def _outcome(self) -> Any:
        """The call, or the error that ended it before there was one."""
        try:
            return await asyncio.shield(self._task)
        except grpc.aio.AioRpcError as error:
            return error
        except asyncio.CancelledError:
            if not self._task.cancelled():
                raise
            return None

    async def code(self) -> grpc.StatusCode:
        outcome = await self._outcome()
        if outcome is None:
            return grpc.StatusCode.CANCELLED
        if isinstance(outcome, grpc.aio.AioRpcError):
            return outcome.code()
        return await outcome.code()  # type: ignore[no-any-return] # any call

    async def details(self) -> str:
        outcome = await self._outcome()
        if outcome is None:
            return CANCELLED
        if isinstance(outcome, grpc.aio.AioRpcError):
            return outcome.details() or ""
        return await outcome.details()  # type: ignore[no-any-return] # any call

    async def initial_metadata(self) -> grpc.aio.Metadata:
        outcome = await self._outcome()
        if outcome is None or isinstance(outcome, grpc.aio.AioRpcError):
            return (outcome and outcome.initial_metadata()) or grpc.aio.Metadata()
        return await outcome.initial_metadata()  # type: ignore[no-any-return] # any call

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        outcome = await self._outcome()
        if outcome is None or isinstance(outcome, grpc.aio.AioRpcError):
            return (outcome and outcome.trailing_metadata()) or grpc.aio.Metadata()
        return await outcome.trailing_metadata()  # type: ignore[no-any-return] # any call

    async def debug_error_string(self) -> str:
        return f"{await self.code()}: {await self.details()}"

    async def wait_for_connection(self) -> None:
        call = await asyncio.shield(self._task)
        await call.wait_for_connection()


class _Awaited(_Intercepted):
    """The half that answers once."""

    def __await__(self) -> Generator[Any, None, Any]:
        call = yield from self._task.__await__()
        return (yield from call.__await__())


class _Read(_Intercepted):
    """The half that answers in a stream."""

    _inner: AsyncIterator[Any] | None = None

    def __aiter__(self) -> AsyncIterator[Any]:
        return Reader(self)

    async def read(self) -> Any:
        return await self.next_message()

    async def next_message(self) -> Any:
        """The next answer, or EOF."""
        if self._inner is None:
            self._inner = aiter(await self._task)
        try:
            return await anext(self._inner)
        except StopAsyncIteration:
            return grpc.aio.EOF


class _Written:
    """Requests that come by ``write``, as the iterator that interceptors see."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[tuple[Any] | None] = asyncio.Queue(maxsize=1)
        self.half_closed = False

    async def __aiter__(self) -> AsyncIterator[Any]:
        while (item := await self._queue.get()) is not None:
            yield item[0]

    async def put(self, item: tuple[Any] | None, call: Any) -> None:
        """Wait until the call takes the item, or is over."""
        putting = asyncio.ensure_future(self._queue.put(item))
        ending = asyncio.ensure_future(call.code())
        try:
            await asyncio.wait({putting, ending}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            putting.cancel()
            ending.cancel()


class _Writes(_Intercepted):
    """The half that asks in a stream."""

    _written: _Written | None = None

    def _requests(self, requests: Requests) -> Any:
        if requests is not None:
            return requests
        self._written = _Written()
        return self._written

    async def write(self, request: Any) -> None:
        written, call = await self._writable()
        if call is None or call.done():
            raise asyncio.InvalidStateError(FINISHED)
        if written.half_closed:
            raise asyncio.InvalidStateError(HALF_CLOSED)
        await written.put((request,), call)
        if call.done():
            raise asyncio.InvalidStateError(FINISHED)

    async def done_writing(self) -> None:
        written, call = await self._writable()
        if call is not None and not written.half_closed:
            written.half_closed = True
            await written.put(None, call)

    async def _writable(self) -> tuple[_Written, Any]:
        if self._written is None:
            raise grpc.aio.UsageError(MIXED)
        outcome = await self._outcome()
        return self._written, None if isinstance(outcome, grpc.aio.AioRpcError) else outcome


class InterceptedUnary(_Awaited, grpc.aio.UnaryUnaryCall[Any, Any]):
    """A unary call behind interceptors."""

    def __init__(
        self,
        interceptors: Sequence[Any],
        start: Start,
        details: grpc.aio.ClientCallDetails,
        request: Any,
    ) -> None:
        super().__init__(_run(interceptors, "intercept_unary_unary", start, details, request))


class InterceptedUnaryStream(_Read, grpc.aio.UnaryStreamCall[Any, Any]):
    """A stream of answers behind interceptors."""

    def __init__(
        self,
        interceptors: Sequence[Any],
        start: Start,
        details: grpc.aio.ClientCallDetails,
        request: Any,
    ) -> None:
        super().__init__(_run(interceptors, "intercept_unary_stream", start, details, request))


class InterceptedStreamUnary(_Writes, _Awaited, grpc.aio.StreamUnaryCall[Any, Any]):
    """A stream of questions behind interceptors."""

    def __init__(
        self,
        interceptors: Sequence[Any],
        start: Start,
        details: grpc.aio.ClientCallDetails,
        requests: Requests,
    ) -> None:
        given = self._requests(requests)
        super().__init__(_run(interceptors, "intercept_stream_unary", start, details, given))


class InterceptedStreamStream(_Writes, _Read, grpc.aio.StreamStreamCall[Any, Any]):
    """Streams both ways behind interceptors."""

    def __init__(
        self,
        interceptors: Sequence[Any],
        start: Start,
        details: grpc.aio.ClientCallDetails,
        requests: Requests,
    ) -> None:
        given = self._requests(requests)
        super().__init__(_run(interceptors, "intercept_stream_stream", start, details, given))
