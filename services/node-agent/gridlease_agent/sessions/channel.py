"""A non-blocking descriptor as a pair of coroutines; nothing is kept in between.

What is not read stays in the kernel's buffer and holds the writer up: a slow reader costs no
memory here.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Callable
from typing import Any

PIECE_BYTES = 64 << 10
_GONE = (errno.EIO, errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN)  # EIO: a terminal's end


class Channel:
    """One descriptor, ours to close."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self.fd = fd
        self._loop = asyncio.get_running_loop()

    async def read(self, size: int = PIECE_BYTES) -> bytes:
        """What there is, at most ``size`` bytes; empty at the end."""
        while True:
            found = self.read_now(size)
            if found is not None:
                await asyncio.sleep(0)  # a fast writer must not keep the loop to itself
                return found
            await self._ready(self._loop.add_reader, self._loop.remove_reader)

    def read_now(self, size: int = PIECE_BYTES) -> bytes | None:
        """What there is already: empty at the end, None where there is nothing yet."""
        if self.fd < 0:
            return b""
        try:
            return os.read(self.fd, size)
        except BlockingIOError:
            return None
        except OSError as trouble:
            if trouble.errno in _GONE:
                return b""
            raise

    async def write(self, data: bytes) -> bool:
        """All of ``data``, as the other side takes it; False where nobody is there any more."""
        view = memoryview(data)
        while view:
            if self.fd < 0:
                return False
            try:
                view = view[os.write(self.fd, view) :]
            except BlockingIOError:
                await self._ready(self._loop.add_writer, self._loop.remove_writer)
            except OSError as trouble:
                if trouble.errno in _GONE:
                    return False
                raise
        return True

    async def _ready(self, add: Callable[..., Any], remove: Callable[[int], Any]) -> None:
        fd, waiter = self.fd, self._loop.create_future()
        add(fd, _wake, waiter)
        try:
            await waiter
        finally:
            remove(fd)

    def shut(self) -> None:
        """Of a connection: no more will be written."""
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(self.fd)) as own:
            own.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Again is harmless. Nobody may wait on it."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            self._loop.remove_reader(fd)
            self._loop.remove_writer(fd)
            os.close(fd)


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
