"""A platform in the background: started, awaited, stopped from another process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Final

from gridlease_kernel.faults import Precondition, Unreachable

from .folder import StateFolder

_READY_S: Final = 300.0
_DOWN_S: Final = 40.0
_TICK_S: Final = 0.05


def start(folder: StateFolder, arguments: Sequence[str], say: Callable[[str], None]) -> None:
    """Run ``up`` in a session of its own; pass its progress on until it is ready.

    Raises:
        Precondition: UP_FAILED with its last words; ALREADY_UP.
        Unreachable: UP_SLOW.
    """
    folder.make()
    other = folder.supervisor()
    if other is not None:
        raise Precondition(
            f"The platform already runs on {folder.root} (pid {other.pid}).",
            reason="ALREADY_UP",
            field="--state",
            remedy="Use it as it is, stop it with ./dev down, or choose another --state.",
        )
    log_path = folder.log("up")
    command = [sys.executable, "-m", "gridlease_launch", "up", *arguments]
    with log_path.open("wb") as log:
        child = subprocess.Popen(
            command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
        )
    deadline = time.monotonic() + _READY_S
    told = 0
    while True:
        code = child.poll()
        who = folder.supervisor()
        text = log_path.read_text(encoding="utf-8", errors="replace")
        lines = text[told:].splitlines(keepends=True)
        for line in lines:
            if line.endswith("\n"):
                told += len(line)
                say(line.rstrip())
        if code is not None:
            raise Precondition(
                "The platform did not start; its last words stand above.",
                reason="UP_FAILED",
                remedy=f"The log is {log_path}.",
            )
        if who is not None and who.ready:
            return
        if time.monotonic() > deadline:
            os.kill(child.pid, signal.SIGTERM)
            raise Unreachable(
                f"The platform was not ready within {_READY_S:.0f} s and was stopped.",
                reason="UP_SLOW",
                remedy=f"The log is {log_path}.",
            )
        time.sleep(_TICK_S)


def stop(folder: StateFolder) -> bool:
    """Stop the platform that holds the folder; False where none does.

    Raises:
        Unreachable: DOWN_SLOW when it has not ended within its bound.
    """
    who = folder.supervisor()
    if who is None:
        return False
    os.kill(who.pid, signal.SIGTERM)
    deadline = time.monotonic() + _DOWN_S
    while folder.supervisor() is not None:
        if time.monotonic() > deadline:
            raise Unreachable(
                f"The supervisor (pid {who.pid}) has not stopped within {_DOWN_S:.0f} s.",
                reason="DOWN_SLOW",
                remedy=f"See {folder.log('up')}.",
            )
        time.sleep(_TICK_S)
    return True
