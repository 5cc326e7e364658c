"""The part of sessions that needs root: lets a session's keeper loose on a sandbox.

Plain values go in and nothing comes out: the keeper itself connects to the core's socket and hands
the descriptors over (see ``keeper``), so this may stand on the other side of any wall.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from gridlease_kernel.faults import Precondition

from gridlease_agent import shim
from gridlease_agent.sessions import keeper

SOCKETS = "sessions"  # the core's folder of sockets, under the state folder
_TOKEN = re.compile(r"[0-9a-f]{16,64}")


@dataclass(frozen=True, slots=True)
class ExecOrder:
    """A program to run beside a task. ``folder``: empty = the task's own."""

    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    folder: str = ""
    tty: bool = False
    rows: int = 24
    columns: int = 80


@dataclass(frozen=True, slots=True)
class ForwardOrder:
    """A connection into a sandbox: to a port of its loopback interface, or to a UNIX socket."""

    port: int = 0
    path: str = ""


class Entrance(Protocol):
    """``SessionHost``, wherever it runs."""

    def exec(self, lease_id: str, token: str, order: ExecOrder) -> None: ...
    def forward(self, lease_id: str, token: str, order: ForwardOrder) -> None: ...


class SessionHost:
    """Starts keepers of sessions in the sandboxes under one state folder."""

    def __init__(self, state: Path) -> None:
        self._state = state.absolute()
        self._keepers: set[int] = set()

    def exec(self, lease_id: str, token: str, order: ExecOrder) -> None:
        """Run a program in the lease's sandbox; its keeper reports to the socket ``token``.

        Raises:
            Precondition: SESSIONS_UNSUPPORTED, TASK_NOT_RUNNING.
        """
        words = {"kind": "exec", "cwd": order.folder} | asdict(order) | {"env": dict(order.env)}
        self._launch(lease_id, token, words)

    def forward(self, lease_id: str, token: str, order: ForwardOrder) -> None:
        """Connect inside the lease's sandbox; the keeper hands the connection to ``token``.

        Raises:
            Precondition: SESSIONS_UNSUPPORTED, TASK_NOT_RUNNING.
        """
        self._launch(lease_id, token, {"kind": "forward"} | asdict(order))

    def _launch(self, lease_id: str, token: str, words: Mapping[str, Any]) -> None:
        assert _TOKEN.fullmatch(token), token
        assert "/" not in lease_id, lease_id
        folder = self._state / "leases" / lease_id
        spec = shim.read_json(str(folder / "spec.json"))
        if spec is None:
            raise not_running()
        if spec["runtime"] != "crun" or os.geteuid() != 0:
            raise unsupported()
        self._collect()
        order = {**words, "folder": str(folder), "socket": [str(self._state / SOCKETS), token]}
        plan = os.memfd_create("order")
        try:
            os.write(plan, json.dumps(order).encode())
            os.lseek(plan, 0, os.SEEK_SET)
            self._keepers.add(
                os.posix_spawn(
                    sys.executable,
                    [sys.executable, "-I", "-S", str(Path(keeper.__file__))],
                    {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
                    file_actions=[(os.POSIX_SPAWN_DUP2, plan, 0)],
                    setsid=True,
                )
            )
        finally:
            os.close(plan)

    def _collect(self) -> None:
        for pid in list(self._keepers):
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(pid, os.WNOHANG)[0] == 0:
                    continue
            self._keepers.discard(pid)


class NoSessions:
    """A host on which nothing can be entered: its tasks are emulated."""

    def exec(self, lease_id: str, token: str, order: ExecOrder) -> None:
        """Never.

        Raises:
            Precondition: SESSIONS_UNSUPPORTED.
        """
        del lease_id, token, order
        raise unsupported()

    def forward(self, lease_id: str, token: str, order: ForwardOrder) -> None:
        """Never.

        Raises:
            Precondition: SESSIONS_UNSUPPORTED.
        """
        del lease_id, token, order
        raise unsupported()


def not_running() -> Precondition:
    """The task has not started yet, or has ended."""
    return Precondition(
        "The task does not run now.",
        reason="TASK_NOT_RUNNING",
        remedy="gridlease show tells where the job stands; sessions need a task that runs.",
    )


def unsupported() -> Precondition:
    """Only crun's sandboxes can be entered from outside."""
    return Precondition(
        "The sandboxes of this node cannot be entered.",
        reason="SESSIONS_UNSUPPORTED",
        remedy="Sessions need a node whose agent runs as root with crun; logs work everywhere.",
    )
