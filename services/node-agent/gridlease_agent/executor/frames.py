"""Messages over a UNIX stream: four bytes of length, JSON, and at most one open file beside it."""

from __future__ import annotations

import array
import json
import os
import socket
import struct
from typing import Any

from gridlease_kernel.faults import Invalid

MAX_BYTES = 8 << 20  # a spec with a megabyte of environment, thrice over
_HEAD = struct.Struct(">I")
_UCRED = struct.Struct("3i")
_NUMBER_BYTES = array.array("i").itemsize


class Closed(Exception):  # noqa: N818 - an end, not an error
    """The other end is gone."""


def peer(connection: socket.socket) -> tuple[int, int]:
    """The pid and uid of the process at the other end, from the kernel."""
    size = _UCRED.size
    pid, uid, _gid = _UCRED.unpack(
        connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    )
    return pid, uid


def send(connection: socket.socket, message: Any, handle: int | None = None) -> None:
    """Send one message whole.

    Raises:
        Invalid: MESSAGE_TOO_LARGE. OSError: the other end is gone, or too slow.
    """
    body = json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode(
        "utf-8", "surrogatepass"
    )
    if len(body) > MAX_BYTES:
        raise _too_large(len(body))
    data = _HEAD.pack(len(body)) + body
    beside = []
    if handle is not None:
        beside = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [handle]))]
    sent = connection.sendmsg([data], beside)
    if sent < len(data):
        connection.sendall(memoryview(data)[sent:])


def receive(connection: socket.socket, *, files: bool) -> tuple[Any, int | None]:
    """One message, and the open file that came with it. ``files``: whether one may come.

    Raises:
        Closed: the other end is gone. Invalid: MESSAGE_TOO_LARGE, MESSAGE_MALFORMED.
    """
    handle = None
    if files:
        head, beside, _flags, _address = connection.recvmsg(
            _HEAD.size, socket.CMSG_SPACE(_NUMBER_BYTES), socket.MSG_CMSG_CLOEXEC
        )
        handle = _handle(beside)
    else:
        head = connection.recv(_HEAD.size)  # the kernel closes a file that comes nevertheless
    if not head:
        raise Closed
    head += _exactly(connection, _HEAD.size - len(head))
    (size,) = _HEAD.unpack(head)
    if size > MAX_BYTES:
        raise _too_large(size)
    try:
        return json.loads(_exactly(connection, size).decode("utf-8", "surrogatepass")), handle
    except (ValueError, RecursionError) as trouble:
        if handle is not None:
            os.close(handle)
        raise Invalid("The message is no JSON.", reason="MESSAGE_MALFORMED") from trouble


def _handle(beside: list[tuple[int, int, bytes]]) -> int | None:
    numbers = array.array("i")
    for level, kind, data in beside:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            numbers.frombytes(data[: len(data) - len(data) % _NUMBER_BYTES])
    for extra in numbers[1:]:
        os.close(extra)
    return numbers[0] if numbers else None


def _exactly(connection: socket.socket, size: int) -> bytes:
    pieces = []
    while size:
        piece = connection.recv(min(size, 1 << 20))
        if not piece:
            raise Closed
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def _too_large(size: int) -> Invalid:
    return Invalid(
        f"A message of {size} bytes exceeds {MAX_BYTES}.",
        reason="MESSAGE_TOO_LARGE",
        remedy="Give the task fewer or shorter variables and commands.",
    )
