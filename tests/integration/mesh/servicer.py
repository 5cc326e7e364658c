# ruff: noqa: N802 - methods are named in the proto
"""The servicer that the behaviour tests run on each transport."""

import asyncio

import grpc
from gridlease_kernel.faults import OverQuota
from gridlease_mesh import trace
from gridlease_mesh.context import caller_node

from tests.integration.mesh.echo import echo_pb2, echo_pb2_grpc


class Echo(echo_pb2_grpc.EchoServiceServicer):
    """Does what ``mode`` says; remembers what happened to it."""

    def __init__(self):
        self.started = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.release = asyncio.Event()
        self.metadata = {}
        self.remaining_s = None
        self.trace = None
        self.written = 0

    async def Say(self, request, context):
        self.metadata = {pair.key: pair.value for pair in _pairs(context.invocation_metadata())}
        self.remaining_s = context.time_remaining()
        self.trace = trace.current()
        self.started.set()
        mode = getattr(self, f"_{request.mode}", None) if request.mode else None
        if mode is not None:
            await mode(request, context)
        return echo_pb2.SayResponse(
            text=request.text,
            ballast=b"b" * request.answer_bytes,
            node=caller_node(context) or "",
        )

    async def _hang(self, request, context):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    async def _wait(self, request, context):
        await self.release.wait()

    async def _abort(self, request, context):
        await context.abort(
            grpc.StatusCode.FAILED_PRECONDITION,
            "not now: ä\n%",
            (("why", "late"), ("raw-bin", b"\x00\xff")),
        )

    async def _set_code(self, request, context):
        context.set_code(grpc.StatusCode.NOT_FOUND)
        context.set_details("no such thing")

    async def _raise(self, request, context):
        raise RuntimeError("a secret")

    async def _fault(self, request, context):
        raise OverQuota(
            "Two is all you may have.",
            reason="TOO_MANY",
            field="text",
            remedy="Ask for less.",
            metadata={"limit": "2"},
            retry_after_ms=1500,
        )

    async def _metadata(self, request, context):
        await context.send_initial_metadata((("first", "1"), ("first-bin", b"\x01")))
        context.set_trailing_metadata((("last", "2"), ("last-bin", b"\x02")))

    async def Repeat(self, request, context):
        self.started.set()
        if request.mode == "metadata":
            await context.send_initial_metadata((("first", "1"),))
            context.set_trailing_metadata((("last", "2"),))
        try:
            for index in range(request.count):
                if request.mode == "abort" and index == 3:
                    await context.abort(grpc.StatusCode.DATA_LOSS, "three is enough")
                if request.mode == "raise" and index == 3:
                    raise RuntimeError("a secret")
                yield echo_pb2.RepeatResponse(index=index, ballast=b"b" * request.size_bytes)
                self.written += 1
            if request.mode == "hang":
                await asyncio.Event().wait()
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled.set()
            raise

    async def Gather(self, request_iterator, context):
        return echo_pb2.SayResponse(text="".join([r.text async for r in request_iterator]))


def _pairs(metadata):
    class Pair:
        def __init__(self, key, value):
            self.key, self.value = key, value

    return [Pair(key, value) for key, value in metadata]
