"""A real agent with a task that runs, and sessions in it over a real broker: one for a module."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest_asyncio
from gridlease.agent.v1 import session_pb2 as pb
from gridlease.agent.v1 import session_pb2_grpc
from gridlease_testkit.plugin import unmounted
from gridlease_testkit.waiting import eventually

from tests.integration.agent import centre as centres
from tests.integration.agent.agents import Agent
from tests.integration.agent.centre import NODE, Centre

LEASE = "ls-1"
WAIT_S = 30.0


class Ran:
    """What an exec said."""

    def __init__(self) -> None:
        self.stdout = self.stderr = b""
        self.code: int | None = None


class Inside:
    """Sessions in one running task."""

    def __init__(self, centre: Centre, agent: Agent) -> None:
        self.centre = centre
        self.agent = agent
        self.stub: Any = session_pb2_grpc.SessionServiceStub(centre.bus.channel(NODE))

    async def start(self, *argv: str, lease: str = LEASE, **parts: Any) -> Any:
        """A call whose program runs."""
        size = parts.pop("size", None)
        command = pb.Command(argv=list(argv), **parts)
        if size:
            command.size.rows, command.size.columns = size
        call = self.stub.Exec(timeout=WAIT_S)
        await call.write(pb.ExecRequest(start=pb.ExecStart(lease=lease, command=command)))
        first = await call.read()
        assert first.output.started, first
        return call

    async def run(self, *argv: str, stdin: bytes | None = b"", **parts: Any) -> Ran:
        call = await self.start(*argv, **parts)

        async def feed() -> None:
            with contextlib.suppress(asyncio.InvalidStateError):  # it has ended by itself
                for at in range(0, len(stdin or b""), 100_000):
                    await send(call, stdin=(stdin or b"")[at : at + 100_000])
                if stdin is not None:
                    await send(call, end_of_input=True)

        ran, _ = await asyncio.gather(read(call), feed())
        return ran


async def send(call: Any, **given: Any) -> None:
    size = given.pop("size", None)
    if size:
        given["size"] = pb.TerminalSize(rows=size[0], columns=size[1])
    await call.write(pb.ExecRequest(input=pb.ExecInput(**given)))


async def read(call: Any, until: bytes | None = None) -> Ran:
    """All that it says, or as far as ``until``."""
    ran = Ran()
    while (answer := await call.read()) is not grpc.aio.EOF:
        kind = answer.output.WhichOneof("kind")
        if kind == "exit":
            ran.code = answer.output.exit.exit_code
        else:
            setattr(ran, kind, getattr(ran, kind) + getattr(answer.output, kind))
        if until is not None and until in ran.stdout:
            break
    return ran


def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="gl-", dir="/tmp"))
    folder.chmod(0o711)
    return folder


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def inside(nats: Any) -> AsyncIterator[Inside]:
    """A task that runs as long as the module's tests; who ends one begins another lease."""
    folder = _folder()
    async with centres.running(nats) as centre:
        centres.enrol(nats, folder)
        agent = Agent(folder)
        try:
            await agent.start()
            centre.want(LEASE, ["echo begun; sleep 600"])
            await eventually(lambda: centre.running(LEASE), 20, str(agent.log))
            yield Inside(centre, agent)
        finally:
            agent.stop()
            agent.end_tasks()
    unmounted(folder)
    shutil.rmtree(folder, ignore_errors=True)
