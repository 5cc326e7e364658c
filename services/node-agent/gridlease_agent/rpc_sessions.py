"""SessionService: programs beside a task, its output, connections into it, for the gateway."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from typing import Any, assert_never

from gridlease.agent.v1 import session_pb2 as pb
from gridlease.agent.v1 import session_pb2_grpc
from gridlease_kernel.faults import Invalid, Late

from gridlease_agent.book import Book
from gridlease_agent.domain.spool import Phase
from gridlease_agent.domain.task import environment
from gridlease_agent.rpc import TaskFiles
from gridlease_agent.sessions.channel import Channel
from gridlease_agent.sessions.desk import Desk, ExecSession
from gridlease_agent.sessions.host import ExecOrder, ForwardOrder, not_running

# Whatever shell there is: images may bring no bash.
_SHELL = ("/bin/sh", "-c", "[ -x /bin/bash ] && exec /bin/bash -l; exec /bin/sh -l")
_ROWS, _COLUMNS = 24, 80


class TaskSessions(session_pb2_grpc.SessionServiceServicer):
    """Each call is one session: it ends with the call, and the call with it."""

    def __init__(self, book: Book, desk: Desk, files: TaskFiles, node_id: str) -> None:
        self._book = book
        self._desk = desk
        self._files = files
        self._node_id = node_id

    async def Exec(  # noqa: N802 - the wire's name
        self, requests: AsyncIterator[pb.ExecRequest], context: Any
    ) -> AsyncIterator[pb.ExecResponse]:
        """Started, then what the program writes, then its exit."""
        del context
        start = (await _first(requests)).start
        order = self._order(start)
        clock = _Clock(self._desk)
        async with self._desk.exec(start.lease, order) as session:
            yield pb.ExecResponse(output=pb.ExecOutput(started=True))

            async def feed() -> None:
                async for request in requests:
                    clock.touch()
                    await _take(session, request.input)
                session.end_input()

            async with _beside(feed()), contextlib.aclosing(session.output(clock.left_s)) as told:
                async for item in told:
                    clock.touch()
                    yield pb.ExecResponse(output=_said(item))

    async def Attach(  # noqa: N802 - the wire's name
        self, request: pb.AttachRequest, context: Any
    ) -> AsyncIterator[pb.AttachResponse]:
        """The task's own output from now on."""
        del context
        self._running(request.lease)
        with self._desk.visiting(request.lease):
            pieces = self._files.newest(request.lease, request.tail_bytes)
            async with contextlib.aclosing(pieces):
                async for content in pieces:
                    yield pb.AttachResponse(content=content)

    async def Forward(  # noqa: N802 - the wire's name
        self, requests: AsyncIterator[pb.ForwardRequest], context: Any
    ) -> AsyncIterator[pb.ForwardResponse]:
        """Connected, then what comes out of the sandbox."""
        del context
        start = (await _first(requests)).start
        self._running(start.lease)
        order = ForwardOrder(start.target.port, start.target.path)
        clock = _Clock(self._desk)
        async with self._desk.forward(start.lease, order) as channel:
            yield pb.ForwardResponse(data=pb.ForwardData(connected=True))
            feeding = _Feed(requests, channel, clock)
            async with _beside(feeding.run()) as fed:
                while data := await _within(channel.read(), clock):
                    clock.touch()
                    yield pb.ForwardResponse(data=pb.ForwardData(content=data))
                yield pb.ForwardResponse(data=pb.ForwardData(half_close=True))
                await _within(asyncio.shield(fed), clock)

    def _running(self, lease_id: str) -> None:
        row = self._book.spool.rows.get(lease_id)
        if row is None or row.phase is not Phase.STARTING:
            raise not_running()

    def _order(self, start: pb.ExecStart) -> ExecOrder:
        self._running(start.lease)
        task, command = self._book.task(start.lease), start.command
        env = dict(environment(task, self._node_id)) if task is not None else {}
        if command.tty:
            env["TERM"] = "xterm-256color"
        env |= dict(command.env)
        return ExecOrder(
            tuple(command.argv) or _SHELL,
            tuple(env.items()),
            command.folder,
            command.tty,
            command.size.rows or _ROWS,
            command.size.columns or _COLUMNS,
        )


class _Clock:
    """How long a session may still wait: idle, and in all."""

    def __init__(self, desk: Desk) -> None:
        self._loop = asyncio.get_running_loop()
        self._idle_s = desk.limits.idle_ms / 1e3
        self._end_s = self._loop.time() + desk.limits.total_ms / 1e3
        self.touch()

    def touch(self) -> None:
        """A byte has moved."""
        self._last_s = self._loop.time()

    def left_s(self) -> float:
        return min(self._last_s + self._idle_s, self._end_s) - self._loop.time()


class _Feed:
    """Carries a caller's bytes to a connection."""

    def __init__(
        self, requests: AsyncIterator[pb.ForwardRequest], channel: Channel, clock: _Clock
    ) -> None:
        self._requests = requests
        self._channel = channel
        self._clock = clock

    async def run(self) -> None:
        async for request in self._requests:
            self._clock.touch()
            match request.data.WhichOneof("kind"):
                case "content":
                    if not await self._channel.write(request.data.content):
                        return
                case "half_close":
                    self._channel.shut()
                    return
                case _:
                    pass
        self._channel.shut()


async def _within(work: Any, clock: _Clock) -> Any:
    """``work``, while the session's time lasts.

    Raises:
        Late: SESSION_OVER.
    """
    running = asyncio.ensure_future(work)
    try:
        while not running.done():
            left_s = clock.left_s()
            if left_s <= 0:
                raise Late(
                    "The connection was idle, or open, for as long as one may be.",
                    reason="SESSION_OVER",
                    remedy="Open it again.",
                )
            await asyncio.wait({running}, timeout=left_s)
        return running.result()
    finally:
        running.cancel()


@contextlib.asynccontextmanager
async def _beside(work: Coroutine[Any, Any, None]) -> AsyncGenerator[asyncio.Task[None], None]:
    """Run ``work`` for no longer than the block."""
    task = asyncio.ensure_future(work)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _first(requests: AsyncIterator[Any]) -> Any:
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


async def _take(session: ExecSession, given: pb.ExecInput) -> None:
    match given.WhichOneof("kind"):
        case "stdin":
            await session.write(given.stdin)
        case "end_of_input":
            session.end_input()
        case "size":
            session.resize(given.size.rows, given.size.columns)
        case "signal":
            session.signal(given.signal)
        case None:
            pass
        case unknown:
            assert_never(unknown)


def _said(item: tuple[str, bytes] | int) -> pb.ExecOutput:
    if isinstance(item, int):
        return pb.ExecOutput(exit=pb.ExecExit(exit_code=item))
    name, data = item
    return pb.ExecOutput(stdout=data) if name == "stdout" else pb.ExecOutput(stderr=data)
