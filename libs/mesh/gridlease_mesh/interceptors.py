"""What wraps every servicer, on ``grpc.aio`` servers and on the mesh alike."""

from __future__ import annotations

import contextlib
import inspect
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import grpc
import grpc.aio
from gridlease_kernel.faults import Fault

from gridlease_mesh import status

_LOG = logging.getLogger(__name__)

Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[Any]]


Before = Callable[[Any, Any], Awaitable[None]]
OnError = Callable[[Exception, Any, str], Awaitable[NoReturn]]
_UNSET = (None, 0, grpc.StatusCode.OK)  # as the two transports say it
_KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


def rewrap(handler: Any, method: str, *, before: Before | None, on_error: OnError | None) -> Any:
    """The same handler with something done before it, and with its exceptions.

    Args:
        before: called with (request, context); not for streams of requests.
        on_error: called with what escaped, the context and the method; ends the call.
    """
    kind = _KINDS[2 * bool(handler.request_streaming) + bool(handler.response_streaming)]
    wrapped = _Wrapped(getattr(handler, kind), method, before, on_error)
    if handler.request_streaming:
        wrapped.before = None
    behaviour = wrapped.many if handler.response_streaming else wrapped.one
    make = getattr(grpc, f"{kind}_rpc_method_handler")
    return make(behaviour, handler.request_deserializer, handler.response_serializer)


@dataclass(slots=True)
class _Wrapped:
    inner: Callable[[Any, Any], Any]
    method: str
    before: Before | None
    on_error: OnError | None

    async def one(self, request: Any, context: Any) -> Any:
        try:
            if self.before is not None:
                await self.before(request, context)
            answer = self.inner(request, context)
            return await answer if inspect.isawaitable(answer) else answer
        except Exception as error:
            await self._escaped(error, context)
            raise

    async def many(self, request: Any, context: Any) -> Any:
        try:
            if self.before is not None:
                await self.before(request, context)
            answers = self.inner(request, context)
            if hasattr(answers, "__aiter__"):
                async with contextlib.aclosing(answers):
                    async for answer in answers:
                        yield answer
            else:
                await answers
        except Exception as error:
            await self._escaped(error, context)
            raise

    async def _escaped(self, error: Exception, context: Any) -> None:
        if self.on_error is not None:
            await self.on_error(error, context, self.method)


class FaultsToStatus(grpc.aio.ServerInterceptor):
    """Turns a Fault into its status; anything else into INTERNAL, told to the log alone, once."""

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        return rewrap(handler, handler_call_details.method, before=None, on_error=_to_status)


async def _to_status(error: Exception, context: Any, method: str) -> NoReturn:
    if isinstance(error, Fault):
        await status.abort_with(context, status.status_from_fault(error))
    if isinstance(error, grpc.aio.AbortError) or context.code() not in _UNSET:
        raise error  # the servicer has already said how the call ends
    _LOG.error("a servicer failed: %s", method, exc_info=error)
    await context.abort(grpc.StatusCode.INTERNAL, "Internal error; see the service's log.")
    raise AssertionError  # abort raises
