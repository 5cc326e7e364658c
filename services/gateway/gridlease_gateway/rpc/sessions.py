"""SessionService: sessions in running tasks, carried on to the node that runs them.

The gateway keeps nothing of a session but the two ends of its streams: a client that goes away
cancels the call on the node, and with it the session. Neither side is read faster than the other
takes it, so a slow reader holds the program up and fills no memory here.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any, TypeVar

import grpc.aio
from google.protobuf.message import Message
from gridlease.agent.v1 import session_pb2
from gridlease.gateway.v1 import gateway_pb2 as pb
from gridlease.type.v1 import job_pb2 as types
from gridlease_kernel.faults import Fault, Invalid

from gridlease_gateway.calls import Call
from gridlease_gateway.inside import Inside, fault_of
from gridlease_gateway.rpc.files import placed_task

_LAST_WORD_S = 1.0

R = TypeVar("R", pb.ExecJobRequest, pb.ForwardJobRequest)


class Sessions:
    """The methods of SessionService."""

    def __init__(self, inside: Inside) -> None:
        self._inside = inside

    async def exec_job(
        self, call: Call, requests: AsyncIterator[pb.ExecJobRequest]
    ) -> AsyncIterator[Message]:
        start = (await _first(requests)).start
        task = await placed_task(self._inside, call, start.name, start.task_index, "start.")
        opening = session_pb2.ExecStart(lease=task.lease, command=start.command)

        def inner(request: pb.ExecJobRequest) -> Message:
            return session_pb2.ExecRequest(input=request.input)

        rest = _rest(session_pb2.ExecRequest(start=opening), requests, inner)
        stream = self._on(task).Exec(timeout=call.left_s())
        async with contextlib.aclosing(_relay(stream, rest)) as answers:
            async for answer in answers:
                yield pb.ExecJobResponse(output=answer.output)

    async def attach_job(self, call: Call, request: pb.AttachJobRequest) -> AsyncIterator[Message]:
        task = await placed_task(self._inside, call, request.name, request.task_index)
        inner = session_pb2.AttachRequest(lease=task.lease, tail_bytes=request.tail_bytes)
        stream = self._on(task).Attach(inner, timeout=call.left_s())
        try:
            async for answer in stream:
                yield pb.AttachJobResponse(content=answer.content)
        except grpc.aio.AioRpcError as error:
            raise fault_of(error, "node") from error
        finally:
            stream.cancel()

    async def forward_job(
        self, call: Call, requests: AsyncIterator[pb.ForwardJobRequest]
    ) -> AsyncIterator[Message]:
        start = (await _first(requests)).start
        task = await placed_task(self._inside, call, start.name, start.task_index, "start.")
        opening = session_pb2.ForwardStart(lease=task.lease, target=start.target)

        def inner(request: pb.ForwardJobRequest) -> Message:
            return session_pb2.ForwardRequest(data=request.data)

        rest = _rest(session_pb2.ForwardRequest(start=opening), requests, inner)
        stream = self._on(task).Forward(timeout=call.left_s())
        async with contextlib.aclosing(_relay(stream, rest)) as answers:
            async for answer in answers:
                yield pb.ForwardJobResponse(data=answer.data)

    def _on(self, task: types.Task) -> Any:
        return self._inside.sessions_of(task.node.removeprefix("nodes/"))


async def _first(requests: AsyncIterator[R]) -> R:
    async for request in requests:
        if request.WhichOneof("step") == "start":
            return request
        break
    raise Invalid(
        "A session's first message says where to start it.",
        reason="SESSION_WITHOUT_START",
        field="start",
        remedy="Send start first, everything else after it.",
    )


async def _rest(
    opening: Message, requests: AsyncIterator[R], inner: Callable[[R], Message]
) -> AsyncGenerator[Message, None]:
    yield opening
    async for request in requests:
        if request.WhichOneof("step") == "start":
            raise Invalid(
                "A session is started once.",
                reason="SESSION_STARTED",
                field="start",
                remedy="Open another call for another session.",
            )
        yield inner(request)


async def _relay(stream: Any, rest: AsyncGenerator[Message, None]) -> AsyncGenerator[Any, None]:
    """The node's answers, while ``rest`` goes in.

    Raises:
        Fault: what the node said, or what was wrong with what went in.
    """
    sending = asyncio.ensure_future(_send(stream, rest))
    reading = asyncio.ensure_future(stream.read())
    waits: set[asyncio.Future[Any]] = {sending, reading}
    try:
        while True:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if sending in waits and sending.done():
                waits.discard(sending)
                if (fault := sending.result()) is not None:
                    raise fault
            if not reading.done():
                continue
            try:
                answer = reading.result()
            except grpc.aio.AioRpcError as error:
                raise fault_of(error, "node") from error
            if answer is grpc.aio.EOF:
                # A client whose write meets the end of its call reads INTERNAL instead of what
                # was sent to it (grpc/grpc#36066): it has the last word, or a moment for it.
                await asyncio.wait({sending}, timeout=_LAST_WORD_S)
                return
            waits.discard(reading)
            yield answer
            reading = asyncio.ensure_future(stream.read())
            waits.add(reading)
    finally:
        stream.cancel()
        for task in (sending, reading):
            task.cancel()
        await asyncio.gather(sending, reading, return_exceptions=True)


async def _send(stream: Any, rest: AsyncGenerator[Message, None]) -> Fault | None:
    """Hand everything on; what was wrong with it. What the node says is told where it is read."""
    async with contextlib.aclosing(rest):
        try:
            async for request in rest:
                await stream.write(request)
            await stream.done_writing()
        except Fault as fault:
            return fault
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            with contextlib.suppress(Fault):  # nobody takes any more of it
                async for _ in rest:
                    pass
    return None
