"""The core's part of sessions: admits them, takes their descriptors over, carries their bytes."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import secrets
import socket
import struct
import termios
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from pathlib import Path

from gridlease_kernel.faults import Conflict, Fault, Late, Precondition, Unreachable

from gridlease_agent.domain.session import Limits, Visits, admitted, left
from gridlease_agent.ports import Host
from gridlease_agent.sessions.channel import PIECE_BYTES, Channel
from gridlease_agent.sessions.host import (
    SOCKETS,
    Entrance,
    ExecOrder,
    ForwardOrder,
    not_running,
    unsupported,
)

_BEGIN_S = 20.0
_QUIET_S = 0.25  # a terminal's last words come through a queue of the kernel's
_TAIL_BYTES = 1 << 20

Output = tuple[str, bytes]  # ("stdout" | "stderr", piece)


class Desk:
    """Who is in which lease."""

    def __init__(self, state: Path, entrance: Entrance, host: Host, limits: Limits) -> None:
        self._folder = state.absolute() / SOCKETS
        self._entrance = entrance
        self._host = host
        self.limits = limits
        self.since_ns = host.now().boottime_ns
        self._visits: dict[str, Visits] = {}
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for left_over in self._folder.iterdir():
            left_over.unlink(missing_ok=True)

    def visits(self, lease_id: str) -> Visits:
        """The sessions of a lease since this agent began."""
        return self._visits.get(lease_id, Visits())

    def forget(self, lease_ids: set[str]) -> None:
        """Keep only those of the given leases."""
        for lease_id in [k for k, v in self._visits.items() if k not in lease_ids and not v.open]:
            del self._visits[lease_id]

    @contextlib.contextmanager
    def visiting(self, lease_id: str) -> Iterator[None]:
        """Count a session of the lease for the block.

        Raises:
            Exhausted: TOO_MANY_SESSIONS.
        """
        self._visits[lease_id] = admitted(self.limits, self._visits, lease_id)
        try:
            yield
        finally:
            self._visits[lease_id] = left(self._visits[lease_id], self._host.now().boottime_ns)

    @contextlib.asynccontextmanager
    async def exec(self, lease_id: str, order: ExecOrder) -> AsyncIterator[ExecSession]:
        """A program in the lease's sandbox; hung up when the block ends.

        Raises:
            Fault: it could not be started.
        """
        with self.visiting(lease_id):

            def start(token: str) -> None:
                self._entrance.exec(lease_id, token, order)

            async with self._begun(start) as (keeper, fds):
                session = ExecSession(keeper, fds, tty=order.tty)
                try:
                    yield session
                finally:
                    session.close()

    @contextlib.asynccontextmanager
    async def forward(self, lease_id: str, order: ForwardOrder) -> AsyncIterator[Channel]:
        """A connection into the lease's sandbox.

        Raises:
            Fault: nothing listens there.
        """
        with self.visiting(lease_id):

            def start(token: str) -> None:
                self._entrance.forward(lease_id, token, order)

            async with self._begun(start) as (_keeper, fds):
                channel = Channel(fds[0])
                try:
                    yield channel
                finally:
                    channel.close()

    @contextlib.asynccontextmanager
    async def _begun(
        self, start: Callable[[str], None]
    ) -> AsyncIterator[tuple[socket.socket, list[int]]]:
        """The keeper's line and the descriptors that it handed over."""
        token = secrets.token_hex(16)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        keeper: socket.socket | None = None
        at = os.open(self._folder, os.O_PATH | os.O_DIRECTORY)
        try:
            listener.setblocking(False)
            listener.bind(f"/proc/self/fd/{at}/{token}")  # a socket's path must be short
            listener.listen(1)
            async with asyncio.timeout(_BEGIN_S):
                await asyncio.to_thread(start, token)
                keeper, _ = await asyncio.get_running_loop().sock_accept(listener)
                fds = await _handed_over(keeper)
            yield keeper, fds
        except TimeoutError as late:
            raise Unreachable(
                "The sandbox did not let the session in in time.",
                reason="SESSION_LATE",
                remedy="The node is busy; try again.",
            ) from late
        finally:
            listener.close()
            if keeper is not None:
                keeper.close()
            (self._folder / token).unlink(missing_ok=True)
            os.close(at)


class ExecSession:
    """A running program's streams. Closing it hangs the program up."""

    def __init__(self, keeper: socket.socket, fds: list[int], *, tty: bool) -> None:
        self._keeper = keeper
        self._tty = tty
        channels = [Channel(fd) for fd in fds]
        self._input = channels[0]
        self._outputs = {"stdout": channels[0]} if tty else {
            "stdout": channels[1], "stderr": channels[2]
        }  # fmt: skip
        self._all = channels

    async def write(self, data: bytes) -> None:
        """Bytes for its standard input, as fast as it takes them; dropped once it takes none."""
        await self._input.write(data)

    def end_input(self) -> None:
        """No more of them; a terminal has no such end, people type Ctrl-D."""
        if not self._tty:
            self._input.close()

    def resize(self, rows: int, columns: int) -> None:
        if self._tty and self._input.fd >= 0:
            size = struct.pack("HHHH", rows, columns, 0, 0)
            fcntl.ioctl(self._input.fd, termios.TIOCSWINSZ, size)

    def signal(self, number: int) -> None:
        """To every process of the session."""
        with contextlib.suppress(OSError):
            self._keeper.send(b"S" + bytes([number]))

    async def output(self, on_wait: Callable[[], float]) -> AsyncGenerator[Output | int, None]:
        """What it writes, in pieces, and its exit code as the last item.

        Args:
            on_wait: asked before each wait: how long it may take, in seconds.

        Raises:
            Late: it took longer.
            Conflict: SESSION_LOST: its keeper died.
        """
        exiting = asyncio.ensure_future(self._exit())
        reads = {name: asyncio.ensure_future(it.read()) for name, it in self._outputs.items()}
        try:
            while not exiting.done():
                waits = {exiting, *reads.values()}
                limit_s = on_wait()
                done, _ = await asyncio.wait(
                    waits, timeout=max(0.0, limit_s), return_when=asyncio.FIRST_COMPLETED
                )
                if not done and on_wait() <= 0:
                    raise _over()
                for name in [it for it, read in reads.items() if read.done()]:
                    data = reads.pop(name).result()
                    if data:
                        yield name, data
                        reads[name] = asyncio.ensure_future(self._outputs[name].read())
            for name, read in reads.items():
                async for data in self._tail(name, read):
                    yield name, data
            yield exiting.result()
        finally:
            everything = [exiting, *reads.values()]
            for task in everything:
                task.cancel()
            await asyncio.gather(*everything, return_exceptions=True)

    async def _tail(self, name: str, read: asyncio.Future[bytes]) -> AsyncGenerator[bytes, None]:
        """What it wrote before it ended: a pipe holds all of it by now, and no more is taken."""
        channel, taken = self._outputs[name], 0
        data: bytes | None = read.result() if read.done() else None
        if data is None:
            read.cancel()
            await asyncio.gather(read, return_exceptions=True)
            data = await self._more(channel)
        while data:
            yield data
            taken += len(data)
            data = await self._more(channel) if taken < _TAIL_BYTES else None

    async def _more(self, channel: Channel) -> bytes | None:
        if not self._tty:
            return channel.read_now()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_QUIET_S):
                return await channel.read(PIECE_BYTES)
        return None

    async def _exit(self) -> int:
        said = await asyncio.get_running_loop().sock_recv(self._keeper, 4096)
        if said[:1] == b"X":
            return int.from_bytes(said[1:5], "big")
        raise Conflict(
            "The session's keeper ended before the program did.",
            reason="SESSION_LOST",
            remedy="Open it again.",
        )

    def close(self) -> None:
        for channel in self._all:
            channel.close()


async def _handed_over(keeper: socket.socket) -> list[int]:
    keeper.setblocking(False)
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(keeper, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(keeper)
    said, fds, _, _ = socket.recv_fds(keeper, 64 << 10, 3)
    if said[:1] == b"F":
        return list(fds)
    raise _told(json.loads(said[1:]) if said[:1] == b"E" else {})


def _told(words: dict[str, str]) -> Fault:
    reason, message = words.get("reason", "SESSION_FAILED"), words.get("message", "")
    if reason == "TASK_NOT_RUNNING":
        return not_running()
    if reason == "SESSIONS_UNSUPPORTED":
        return unsupported()
    if reason == "FORWARD_REFUSED":
        return Precondition(
            message, reason=reason, field="target", remedy="Start what should listen there first."
        )
    return Unreachable(
        message or "The sandbox could not be entered.",
        reason="SESSION_FAILED",
        remedy="Try again; see the agent's log.",
    )


def _over() -> Late:
    return Late(
        "The session was idle, or open, for as long as a session may be.",
        reason="SESSION_OVER",
        remedy="Open it again.",
    )
