"""Client interceptors on the mesh: the same classes that ``grpc.aio`` takes."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Sequence
from typing import Any

import grpc
import grpc.aio

Start = Callable[[grpc.aio.ClientCallDetails, Any], Any]

_CANCELLED = "Locally cancelled by application!"


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

    async def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.OK

    async def details(self) -> str:
        return ""

    async def initial_metadata(self) -> grpc.aio.Metadata:
        return grpc.aio.Metadata()

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        return grpc.aio.Metadata()


async def _run(
    interceptors: Sequence[Any],
    method_name: str,
    start: Start,
    details: grpc.aio.ClientCallDetails,
    request: Any,
) -> Any:
    async def step(rest: Sequence[Any], details: grpc.aio.ClientCallDetails, request: Any) -> Any:
        if not rest:
            return start(details, request)
        onward = functools.partial(step, rest[1:])
        answer = await getattr(rest[0], method_name)(onward, details, request)
        is_call = hasattr(answer, "trailing_metadata") or hasattr(answer, "__aiter__")
        return answer if is_call else _Ready(answer)

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
            return _CANCELLED
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

    async def wait_for_connection(self) -> None:
        await self._outcome()


class InterceptedUnary(_Intercepted, grpc.aio.UnaryUnaryCall[Any, Any]):
    """A unary call behind interceptors."""

    def __init__(
        self,
        interceptors: Sequence[Any],
        start: Start,
        details: grpc.aio.ClientCallDetails,
        request: Any,
    ) -> None:
        super().__init__(_run(interceptors, "intercept_unary_unary", start, details, request))

    def __await__(self) -> Generator[Any, None, Any]:
        call = yield from self._task.__await__()
        return (yield from call.__await__())


class InterceptedStream(_Intercepted, grpc.aio.UnaryStreamCall[Any, Any]):
    """A server stream behind interceptors."""

    def __init__(
        self,
        interceptors: Sequence[Any],
        start: Start,
        details: grpc.aio.ClientCallDetails,
        request: Any,
    ) -> None:
        super().__init__(_run(interceptors, "intercept_unary_stream", start, details, request))
        self._iterator: AsyncIterator[Any] | None = None

    def __aiter__(self) -> AsyncIterator[Any]:
        if self._iterator is None:
            self._iterator = self._messages()
        return self._iterator

    async def _messages(self) -> AsyncIterator[Any]:
        async for message in await self._task:
            yield message

    async def read(self) -> Any:
        try:
            return await anext(aiter(self))
        except StopAsyncIteration:
            return grpc.aio.EOF
