"""Runs a servicer's method on a call: four arities, coroutines, generators and plain functions.

Plain functions run in a thread, with a context whose methods may be called from there.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import inspect
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from typing import Any, NoReturn

import grpc
import grpc.aio

from gridlease_mesh.context import MeshContext

_END = object()


async def run(handler: Any, context: MeshContext, pool: concurrent.futures.Executor | None) -> None:
    """Call the handler for its arity and end the call with what it answers."""
    context.serialize = handler.response_serializer
    context.deserialize = handler.request_deserializer
    if handler.response_streaming and context.opening.credits is None:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "the method answers in a stream")
    if handler.request_streaming:
        behaviour = handler.stream_stream if handler.response_streaming else handler.stream_unary
        given: Any = context.requests()
    else:
        behaviour = handler.unary_stream if handler.response_streaming else handler.unary_unary
        given = await _one(context)
    threaded = not _is_async(behaviour)
    if threaded:
        behaviour, given, context_seen = _in_thread(behaviour, given, context, pool, handler)
    else:
        context_seen = context
    answer = behaviour(given, context_seen)
    if handler.response_streaming:
        await _write_all(answer, context)
        context.finish(None)
        return
    if inspect.isawaitable(answer):
        answer = await answer
    if context.code() is not grpc.StatusCode.OK or context.done():
        context.finish(None)
        return
    if context.congested:
        await context.breathe()
    context.finish(context.serialize(answer) if context.serialize else answer)


async def _one(context: MeshContext) -> Any:
    payload = context.take_payload()
    if payload is not None:
        return context.deserialize(payload) if context.deserialize else payload
    message = await context.read()
    if message is grpc.aio.EOF:
        await context.abort(grpc.StatusCode.INTERNAL, "the call has no message")
    return message


async def _write_all(answers: Any, context: MeshContext) -> None:
    if hasattr(answers, "__aiter__"):
        closing = answers if hasattr(answers, "aclose") else None
        async with contextlib.aclosing(closing) if closing else contextlib.nullcontext():
            async for answer in answers:  # closed here, so that its cleanup runs now
                await context.write(answer)
    elif inspect.isawaitable(answers):
        await answers


@functools.lru_cache(maxsize=4096)
def _is_async(behaviour: Callable[..., Any]) -> bool:
    while isinstance(behaviour, functools.partial):
        behaviour = behaviour.func
    for each in (behaviour, getattr(behaviour, "__call__", None)):  # noqa: B004 - its own code
        if inspect.iscoroutinefunction(each) or inspect.isasyncgenfunction(each):
            return True
    return False


def _in_thread(
    behaviour: Callable[..., Any],
    given: Any,
    context: MeshContext,
    pool: concurrent.futures.Executor | None,
    handler: Any,
) -> tuple[Callable[..., Any], Any, Any]:
    """The behaviour as a coroutine that runs it in a thread, and what it is given there."""
    seen = SyncContext(context)
    if handler.request_streaming:
        given = seen.requests(given)
    off = functools.partial(asyncio.get_running_loop().run_in_executor, pool)

    async def once(request: Any, seen: SyncContext) -> Any:
        answer = await off(behaviour, request, seen)
        return await answer if inspect.isawaitable(answer) else answer

    async def many(request: Any, seen: SyncContext) -> AsyncIterator[Any]:
        answers = await off(behaviour, request, seen)
        if hasattr(answers, "__aiter__"):  # an async generator behind a plain callable
            async for answer in answers:
                yield answer
            return
        iterator = iter(answers)
        while (answer := await off(next, iterator, _END)) is not _END:
            yield answer

    return (many if handler.response_streaming else once), given, seen


class SyncContext(grpc.ServicerContext):
    """The context of a servicer's plain function: every method may block, none must be awaited."""

    def __init__(self, context: MeshContext) -> None:
        self._context = context
        self._loop = asyncio.get_running_loop()

    def _wait(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def requests(self, messages: AsyncIterator[Any]) -> Iterator[Any]:
        """The client's messages, for a thread."""
        while True:
            try:
                yield self._wait(_next(messages))
            except StopAsyncIteration:
                return

    def abort(self, code: grpc.StatusCode, details: str) -> NoReturn:
        self._wait(self._context.abort(code, details))
        raise AssertionError  # abort raises

    def abort_with_status(self, status: grpc.Status) -> NoReturn:
        self._wait(self._context.abort_with_status(status))
        raise AssertionError  # abort raises

    def send_initial_metadata(self, initial_metadata: Iterable[Any]) -> None:
        self._wait(self._context.send_initial_metadata(initial_metadata))

    def set_trailing_metadata(self, trailing_metadata: Iterable[Any]) -> None:
        self._context.set_trailing_metadata(trailing_metadata)

    def trailing_metadata(self) -> Any:
        return self._context.trailing_metadata()

    def invocation_metadata(self) -> Any:
        return self._context.invocation_metadata()

    def node_id(self) -> str | None:
        return self._context.node_id()

    def peer(self) -> str:
        return self._context.peer()

    def peer_identities(self) -> Any:
        return self._context.peer_identities()

    def peer_identity_key(self) -> str | None:
        return self._context.peer_identity_key()

    def auth_context(self) -> Any:
        return self._context.auth_context()

    def set_compression(self, compression: grpc.Compression) -> None:
        self._context.set_compression(compression)

    def disable_next_message_compression(self) -> None:
        self._context.disable_next_message_compression()

    def set_code(self, code: grpc.StatusCode) -> None:
        self._context.set_code(code)

    def code(self) -> grpc.StatusCode:
        return self._context.code()

    def set_details(self, details: str) -> None:
        self._context.set_details(details)

    def details(self) -> str:
        return self._context.details()

    def is_active(self) -> bool:
        return not self._context.done()

    def time_remaining(self) -> float:
        return self._context.time_remaining()

    def cancel(self) -> bool:
        self._loop.call_soon_threadsafe(self._context.cancel)
        return not self._context.done()

    def add_callback(self, callback: Callable[[], None]) -> bool:
        if self._context.done():
            return False
        self._context.add_done_callback(lambda _context: callback())
        return True


async def _next(messages: AsyncIterator[Any]) -> Any:
    return await anext(messages)
