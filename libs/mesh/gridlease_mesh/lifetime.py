"""A process's life, the same in every service: waiting for others, being ready, ending tasks."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from gridlease_kernel.faults import Unreachable

T = TypeVar("T")
_LOG = logging.getLogger(__name__)
_FIRST_PAUSE_S = 0.2
_LAST_PAUSE_S = 5.0
_AGAIN_S = 0.5
_TIMES = 6


@contextlib.contextmanager
def ready(path: Path | None) -> Iterator[None]:
    """Say that we serve, with our pid in a file, for as long as the block runs."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}")
        part.write_text(f"{os.getpid()}\n", encoding="ascii")
        part.replace(path)
    try:
        yield
    finally:
        if path is not None:
            path.unlink(missing_ok=True)


async def patiently(what: str, work: Callable[[], Awaitable[T]]) -> T:
    """``work``'s answer, asked again, with growing pauses, for as long as its other end is away."""
    pause_s = _FIRST_PAUSE_S
    _LOG.info("waiting for %s", what)
    while True:
        try:
            return await work()
        except Unreachable as fault:
            _LOG.warning("still waiting for %s: %s", what, fault)
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * 2, _LAST_PAUSE_S)


async def ended(task: asyncio.Task[Any]) -> None:
    """Cancel a task and wait for its end, at most a few seconds.

    Once is not enough: before Python 3.12 ``asyncio.wait_for``, which libraries use, loses a
    cancellation that meets its answer, and the task goes on as if nobody had asked.
    """
    for _ in range(_TIMES):
        task.cancel()
        done, _pending = await asyncio.wait([task], timeout=_AGAIN_S)
        if done:
            break
    else:
        _LOG.error("a task does not end", extra={"task": task.get_name()})
    if task.done() and not task.cancelled():
        error = task.exception()
        if error is not None:
            _LOG.warning("a task ended in trouble: %r", error, extra={"task": task.get_name()})
