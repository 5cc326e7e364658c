"""Sessions in running tasks: run a program beside one, follow its output, connect into it.

A session ends with its block, and what runs in it is hung up. It is never opened again by itself:
a program that was cut off must not run twice.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from typing import Any, Final

import grpc.aio
from google.protobuf.message import Message
from gridlease.agent.v1 import session_pb2 as inside
from gridlease.gateway.v1 import gateway_pb2 as pb
from gridlease_kernel.faults import Unreachable

from gridlease_sdk.channel import Connection

PIECE_BYTES: Final = 64 << 10


class Session:
    """One call, both ways; trouble is a Fault."""

    def __init__(self, connection: Connection, call: Any) -> None:
        self._on = connection
        self._call = call

    async def send(self, message: Message) -> bool:
        """Hand it on as fast as it is taken; False once nobody takes any more."""
        try:
            await self._call.write(message)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return False  # what was wrong is told to the one who reads
        return True

    async def receive(self) -> Any:
        """The next answer, None after the last.

        Raises:
            Fault: what the platform said.
        """
        try:
            answer = await self._call.read()
        except grpc.aio.AioRpcError as error:
            raise self._on.fault(error) from error
        return None if answer is grpc.aio.EOF else answer


class ExecSession(Session):
    """A program beside a task. ``exit_code`` is known once ``output`` has ended."""

    exit_code: int | None = None

    async def write(self, data: bytes) -> bool:
        """Bytes for its standard input."""
        for at in range(0, len(data), PIECE_BYTES):
            if not await self._put(inside.ExecInput(stdin=data[at : at + PIECE_BYTES])):
                return False
        return True

    async def end_input(self) -> None:
        """No more of them."""
        await self._put(inside.ExecInput(end_of_input=True))

    async def resize(self, rows: int, columns: int) -> None:
        """Its terminal has another size now."""
        size = inside.TerminalSize(rows=rows, columns=columns)
        await self._put(inside.ExecInput(size=size))

    async def signal(self, number: int) -> None:
        """A signal for all its processes, by Linux's number."""
        await self._put(inside.ExecInput(signal=number))

    async def output(self) -> AsyncGenerator[tuple[str, bytes], None]:
        """("stdout" or "stderr", what it wrote), until it has ended.

        Raises:
            Fault: the session was cut.
        """
        while (answer := await self.receive()) is not None:
            said = answer.output
            match said.WhichOneof("kind"):
                case "stdout":
                    yield "stdout", said.stdout
                case "stderr":
                    yield "stderr", said.stderr
                case "exit":
                    self.exit_code = said.exit.exit_code
                    return
                case _:
                    pass
        raise _cut()

    async def _put(self, given: inside.ExecInput) -> bool:
        return await self.send(pb.ExecJobRequest(input=given))


class ForwardSession(Session):
    """A connection into a task's sandbox."""

    async def write(self, data: bytes) -> bool:
        """Bytes for the other side."""
        for at in range(0, len(data), PIECE_BYTES):
            piece = inside.ForwardData(content=data[at : at + PIECE_BYTES])
            if not await self.send(pb.ForwardJobRequest(data=piece)):
                return False
        return True

    async def half_close(self) -> None:
        """No more bytes from here."""
        await self.send(pb.ForwardJobRequest(data=inside.ForwardData(half_close=True)))

    async def read(self) -> bytes:
        """What came; empty once no more will.

        Raises:
            Fault: the connection was cut.
        """
        while (answer := await self.receive()) is not None:
            match answer.data.WhichOneof("kind"):
                case "content":
                    return bytes(answer.data.content)
                case "half_close":
                    return b""
                case _:
                    pass
        return b""


class SessionCalls:
    """The part of ``Client`` about sessions."""

    _on: Connection

    @contextlib.asynccontextmanager
    async def exec(
        self,
        name: str,
        argv: Sequence[str] = (),
        *,
        tty: bool = False,
        size: tuple[int, int] = (24, 80),
        env: Mapping[str, str] | None = None,
        folder: str = "",
        task_index: int = 0,
    ) -> AsyncIterator[ExecSession]:
        """Run a program beside a task; without ``argv`` a shell. It is hung up with the block.

        Raises:
            Fault: it could not be started.
        """
        command = inside.Command(argv=argv, env=dict(env or {}), folder=folder, tty=tty)
        command.size.rows, command.size.columns = size
        start = pb.ExecJobStart(name=name, task_index=task_index, command=command)
        call = self._on.open_session(self._on.sessions.ExecJob)
        session = ExecSession(self._on, call)
        try:
            await session.send(pb.ExecJobRequest(start=start))
            if await session.receive() is None:  # started
                raise _cut()
            yield session
        finally:
            call.cancel()

    async def attach(
        self, name: str, *, tail_bytes: int = 0, task_index: int = 0
    ) -> AsyncGenerator[bytes, None]:
        """A task's own output from now on, until it has ended; it takes no input.

        Raises:
            Fault: it does not run, or the session was cut.
        """
        request = pb.AttachJobRequest(name=name, task_index=task_index, tail_bytes=tail_bytes)
        stream = self._on.open(self._on.sessions.AttachJob, request)
        try:
            async for answer in stream:
                yield answer.content
        except grpc.aio.AioRpcError as error:
            raise self._on.fault(error) from error
        finally:
            stream.cancel()

    @contextlib.asynccontextmanager
    async def forward(
        self, name: str, target: int | str, *, task_index: int = 0
    ) -> AsyncIterator[ForwardSession]:
        """A connection to a port of a task's loopback interface, or to a UNIX socket's path.

        Raises:
            Fault: nothing listens there.
        """
        to = inside.ForwardTarget()
        if isinstance(target, int):
            to.port = target
        else:
            to.path = target
        start = pb.ForwardJobStart(name=name, task_index=task_index, target=to)
        call = self._on.open_session(self._on.sessions.ForwardJob)
        session = ForwardSession(self._on, call)
        try:
            await session.send(pb.ForwardJobRequest(start=start))
            if await session.receive() is None:  # connected
                raise _cut()
            yield session
        finally:
            call.cancel()


def _cut() -> Unreachable:
    return Unreachable(
        "The platform ended the session.",
        reason="SESSION_CUT",
        remedy="Open it again.",
    )
