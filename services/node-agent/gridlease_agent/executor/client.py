"""Asks the executor: a call is one message there and one back, within the verb's patience."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

from gridlease_kernel.faults import Late, Unreachable

from gridlease_agent.executor import frames, trouble, verbs
from gridlease_agent.executor.codec import Handle
from gridlease_agent.executor.server import SOCKET

_AWAY_S = 5.0  # how long a starting executor is waited for
_AGAIN_S = 0.02
_KEPT = 4


class Executor:
    """The executor of a state folder; safe to use from any thread. Blocking: never on a loop."""

    def __init__(self, state: Path, server_uid: int = 0) -> None:
        self._state = state
        self._server_uid = server_uid
        self._idle: list[socket.socket] = []
        self._lock = threading.Lock()

    def room(self, name: str) -> Any:
        """Something that answers as ``verbs.ROOMS`` says, by asking."""
        assert name in verbs.ROOMS, name
        return _Room(self, name)

    def ask(self, verb: verbs.Verb, arguments: list[Any]) -> Any:
        """One question.

        Raises:
            Fault, OSError: the verb's own. Unreachable: EXECUTOR_AWAY, EXECUTOR_LOST: it may have
            been done. Late: EXECUTOR_SLOW.
        """
        until = time.monotonic() + verb.patience_s
        while True:
            connection = self._connection(min(until, time.monotonic() + _AWAY_S))
            try:
                return self._once(connection, verb, arguments, until)
            except TimeoutError as slow:
                connection.close()
                raise Late(
                    f"The executor did not answer {verb.name} in time.", reason="EXECUTOR_SLOW"
                ) from slow
            except (frames.Closed, ConnectionError) as gone:
                connection.close()
                if verb.name in verbs.ONCE or time.monotonic() >= until:
                    raise Unreachable(
                        f"The executor died under {verb.name}.", reason="EXECUTOR_LOST"
                    ) from gone

    def close(self) -> None:
        """Let all connections go."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _once(
        self, connection: socket.socket, verb: verbs.Verb, arguments: list[Any], until: float
    ) -> Any:
        connection.settimeout(max(0.05, until - time.monotonic()))
        try:
            frames.send(connection, [verb.name, arguments])
            answer, handle = frames.receive(connection, files=True)
        except (TimeoutError, ConnectionError, frames.Closed):
            raise
        except OSError as broken:
            raise ConnectionError(str(broken)) from broken
        self._keep(connection)
        if answer[0] != "ok":
            raise trouble.heard(answer)
        if verb.handle:
            return None if handle is None else Handle(handle)
        return None if verb.result is None else verb.result.decode(answer[1])

    def _connection(self, until: float) -> socket.socket:
        while self._idle:
            with self._lock:
                connection = self._idle.pop() if self._idle else None
            if connection is None:
                break
            if _alive(connection):
                return connection
            connection.close()
        while True:
            try:
                return self._connected()
            except OSError as away:
                if time.monotonic() >= until:
                    raise Unreachable(
                        f"The executor of {self._state} does not answer.",
                        reason="EXECUTOR_AWAY",
                        remedy="Look at its log: is gridlease-executor running?",
                    ) from away
            time.sleep(_AGAIN_S)

    def _connected(self) -> socket.socket:
        folder = os.open(self._state, os.O_PATH | os.O_DIRECTORY)
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(f"/proc/self/fd/{folder}/{SOCKET}")
            _pid, uid = frames.peer(connection)
            if uid != self._server_uid:
                raise PermissionError(f"uid {uid} listens in the executor's place")
        except BaseException:
            connection.close()
            raise
        finally:
            os.close(folder)
        return connection

    def _keep(self, connection: socket.socket) -> None:
        with self._lock:
            if len(self._idle) < _KEPT:
                self._idle.append(connection)
                return
        connection.close()


def _alive(connection: socket.socket) -> bool:
    """Nothing has come on an idle connection, not even its end."""
    with contextlib.suppress(BlockingIOError):
        connection.settimeout(0)
        connection.recv(1, socket.MSG_PEEK)
        return False
    return True


class _Room:
    """Turns the methods of a room's type into questions."""

    def __init__(self, executor: Executor, name: str) -> None:
        self._executor = executor
        self._name = name

    def __getattr__(self, method: str) -> Any:
        if method in verbs.ROOMS:  # as ``files.reports``
            return self._executor.room(method)
        verb = verbs.find(f"{self._name}.{method}")

        def ask(*arguments: Any, **named: Any) -> Any:
            return self._executor.ask(verb, verb.pack(arguments, named))

        self.__dict__[method] = ask
        return ask
