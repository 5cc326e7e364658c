"""One agent a state folder."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from gridlease_kernel.faults import Precondition


@contextlib.contextmanager
def alone(state: Path, name: str = "agent.lock") -> Iterator[None]:
    """Hold the state folder for this process.

    Raises:
        Precondition: STATE_FOLDER, STATE_IN_USE.
    """
    try:
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = (state / name).open("a")
    except OSError as trouble:
        raise Precondition(
            f"The state folder {state} cannot be used: {trouble.strerror}.",
            reason="STATE_FOLDER",
            field="--state",
            remedy="Choose another with --state, or correct its owner and mode.",
        ) from trouble
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as trouble:
            raise Precondition(
                f"Another agent works in {state}.",
                reason="STATE_IN_USE",
                field="--state",
                remedy="Stop it first, or choose another folder.",
            ) from trouble
        yield
