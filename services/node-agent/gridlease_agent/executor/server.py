"""Answers the core's verbs: a thread a connection, one question at a time on each."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gridlease_kernel.faults import Fault, Invalid

from gridlease_agent.executor import frames, trouble, verbs

_LOG = logging.getLogger(__name__)
SOCKET = "executor.sock"
_MOST_CONNECTIONS = 8
_SEND_S = 10.0


class Server:
    """Listens in the state folder; only processes of the core's uid are answered."""

    def __init__(self, rooms: Mapping[str, object], core_uid: int) -> None:
        self._rooms = rooms
        self._core_uid = core_uid
        self._places = threading.BoundedSemaphore(_MOST_CONNECTIONS)

    def serve(self, listener: socket.socket) -> None:
        """Until the listener is closed."""
        while True:
            try:
                connection, _address = listener.accept()
            except OSError:
                return
            pid, uid = frames.peer(connection)
            if uid != self._core_uid:
                _LOG.warning("a stranger was turned away", extra={"peer": pid, "uid": uid})
                connection.close()
            elif not self._places.acquire(blocking=False):
                _LOG.warning("too many connections", extra={"peer": pid})
                connection.close()
            else:
                threading.Thread(target=self._attend, args=(connection,), daemon=True).start()

    def _attend(self, connection: socket.socket) -> None:
        try:
            with connection, contextlib.suppress(frames.Closed, OSError):
                while True:
                    message, _handle = frames.receive(connection, files=False)
                    connection.settimeout(_SEND_S)
                    self._answer(connection, message)
                    connection.settimeout(None)
        except Invalid as fault:
            _LOG.warning("a message was refused: %s", fault)
        finally:
            self._places.release()

    def _answer(self, connection: socket.socket, message: Any) -> None:
        handle: int | None = None
        try:
            answer, handle = self.ask(message)
        except (Fault, OSError) as expected:
            answer = trouble.told(expected)
        except Exception as bug:  # noqa: BLE001 - one question's bug must not end the others
            _LOG.exception("a verb failed")
            answer = trouble.told(bug)
        try:
            frames.send(connection, answer, handle)
        finally:
            if handle is not None:
                os.close(handle)

    def ask(self, message: Any) -> tuple[list[Any], int | None]:
        """The answer to a message, and the open file that goes with it.

        Raises:
            Fault, OSError: the verb's own; Invalid where the message is no good.
        """
        match message:
            case [str(name), list(values)]:
                verb = verbs.find(name)
                arguments = verb.unpack(values)
            case _:
                raise Invalid("The message is no question.", reason="MESSAGE_MALFORMED")
        room, _dot, method = name.partition(".")
        result = getattr(self._rooms[room], method)(**arguments)
        if verb.handle:
            return ["ok", result is not None], result
        return ["ok", None if verb.result is None else verb.result.encode(result)], None


def listen(state: Path, core_gid: int) -> socket.socket:
    """The socket in the state folder, for members of the core's group to connect to."""
    folder = os.open(state, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(SOCKET, dir_fd=folder)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o777)
        try:  # a socket's own path may be longer than the 107 bytes that an address holds
            listener.bind(f"/proc/self/fd/{folder}/{SOCKET}")
        finally:
            os.umask(before)
        if os.geteuid() == 0:
            os.chown(SOCKET, 0, core_gid, dir_fd=folder, follow_symlinks=False)
        os.chmod(SOCKET, 0o660, dir_fd=folder)
        listener.listen(_MOST_CONNECTIONS)
    finally:
        os.close(folder)
    return listener
