"""Carries bytes between this terminal, or a local port, and a session."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import termios
import threading
import tty as terminal
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

from gridlease_kernel.faults import Fault, Precondition
from gridlease_sdk.client import Client
from gridlease_sdk.sessioncalls import PIECE_BYTES, ExecSession

from gridlease_cli.trouble import clean

_SAID_BYTES = 64 << 10


async def run(
    client: Client,
    name: str,
    argv: Sequence[str],
    *,
    tty: bool,
    stdin: bool,
    env: Mapping[str, str] | None = None,
    folder: str = "",
    task: int = 0,
) -> int:
    """Run a program with our own streams; its exit code."""
    words = dict(env or {})
    if tty and "TERM" in os.environ:
        words["TERM"] = os.environ["TERM"]
    options: dict[str, Any] = {"env": words, "folder": folder, "task_index": task}
    async with client.exec(name, argv, tty=tty, size=_size(), **options) as session:
        with _raw(tty), _resizing(session, tty):
            feeding = asyncio.ensure_future(_feed(session, stdin))
            try:
                async with contextlib.aclosing(session.output()) as output:
                    async for stream, data in output:
                        out = sys.stdout if stream == "stdout" else sys.stderr
                        out.buffer.write(data)
                        out.buffer.flush()
            finally:
                feeding.cancel()
        assert session.exit_code is not None
        return session.exit_code


async def said(client: Client, name: str, argv: Sequence[str], task: int) -> str:
    """What a program says, at most 64 KiB; empty where it fails."""
    found = b""
    async with client.exec(name, argv, task_index=task) as session:
        await session.end_input()
        async with contextlib.aclosing(session.output()) as output:
            async for stream, data in output:
                if stream == "stdout" and len(found) < _SAID_BYTES:
                    found += data
        return found.decode("utf-8", "replace").strip() if session.exit_code == 0 else ""


@contextlib.asynccontextmanager
async def listening(
    client: Client, name: str, local: int, remote: int | str, task: int
) -> AsyncIterator[int]:
    """Carry what connects to a local port into a task; the port.

    Raises:
        Precondition: PORT_TAKEN.
    """

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await _carry(client, name, remote, task, reader, writer)
        except Fault as fault:
            print(clean(f"gridlease: {fault}"), file=sys.stderr)
        except OSError:
            pass  # our own side went away
        finally:
            writer.close()

    try:
        server = await asyncio.start_server(carry, "127.0.0.1", local)
    except OSError as error:
        raise Precondition(
            f"Cannot listen on port {local}: {error.strerror or error}.",
            reason="PORT_TAKEN",
            field="port",
            remedy="Choose another, or 0 for any free one.",
        ) from error
    async with server:
        yield int(server.sockets[0].getsockname()[1])


async def forever() -> None:
    """Until interrupted."""
    await asyncio.get_running_loop().create_future()


async def _carry(
    client: Client,
    name: str,
    remote: int | str,
    task: int,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:
    async with client.forward(name, remote, task_index=task) as session:

        async def out() -> None:
            while data := await reader.read(PIECE_BYTES):
                if not await session.write(data):
                    return
            await session.half_close()

        sending = asyncio.ensure_future(out())
        try:
            while data := await session.read():
                writer.write(data)
                await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()
            await sending
        finally:
            sending.cancel()


async def _feed(session: ExecSession, wanted: bool) -> None:
    """Our input, as fast as it is taken. A thread reads: not every input can be polled."""
    if wanted:
        loop = asyncio.get_running_loop()
        pieces: asyncio.Queue[bytes] = asyncio.Queue(1)

        def read() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                while True:
                    data = os.read(0, PIECE_BYTES)
                    asyncio.run_coroutine_threadsafe(pieces.put(data), loop).result()
                    if not data:
                        return

        threading.Thread(target=read, daemon=True).start()
        while data := await pieces.get():
            if not await session.write(data):
                return
    await session.end_input()


@contextlib.contextmanager
def _raw(tty: bool) -> Iterator[None]:
    """Every key goes to the program while the block runs."""
    if not (tty and sys.stdin.isatty()):
        yield
        return
    before = termios.tcgetattr(0)
    terminal.setraw(0)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


@contextlib.contextmanager
def _resizing(session: ExecSession, tty: bool) -> Iterator[None]:
    """Tell the program of each new size of our window."""
    loop = asyncio.get_running_loop()
    telling: set[asyncio.Task[None]] = set()

    def changed() -> None:
        task = loop.create_task(session.resize(*_size()))
        telling.add(task)
        task.add_done_callback(telling.discard)

    if tty:
        loop.add_signal_handler(signal.SIGWINCH, changed)
    try:
        yield
    finally:
        if tty:
            loop.remove_signal_handler(signal.SIGWINCH)


def _size() -> tuple[int, int]:
    size = shutil.get_terminal_size()
    return size.lines, size.columns
