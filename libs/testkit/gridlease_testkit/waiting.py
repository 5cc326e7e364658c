"""Waiting on conditions, never on time: bounded, and said plainly when it was in vain."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")
_FIRST_PAUSE_S = 0.002
_LAST_PAUSE_S = 0.05


async def eventually(
    predicate: Callable[[], T | Awaitable[T]], timeout_s: float = 10.0, what: str = ""
) -> T:
    """The first truthy answer of ``predicate`` (plain or async), asked until ``timeout_s``.

    Raises:
        AssertionError: it never was, with the last answer.
    """
    deadline = time.monotonic() + timeout_s
    pause_s = _FIRST_PAUSE_S
    while True:
        answer = predicate()
        value: T = await answer if inspect.isawaitable(answer) else answer
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s} s: {what or predicate}; last: {value!r}")
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * 2, _LAST_PAUSE_S)


def eventually_sync(predicate: Callable[[], T], timeout_s: float = 10.0, what: str = "") -> T:
    """As ``eventually``, for tests without a loop."""
    deadline = time.monotonic() + timeout_s
    pause_s = _FIRST_PAUSE_S
    while not (value := predicate()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s} s: {what or predicate}; last: {value!r}")
        time.sleep(pause_s)
        pause_s = min(pause_s * 2, _LAST_PAUSE_S)
    return value


async def elapsed(span_s: float) -> None:
    """Where time itself is the subject: a measurement's window, a storm's own pace.

    Never to let something happen: that is waited for with ``eventually``.
    """
    await asyncio.sleep(span_s)


def elapsed_sync(span_s: float) -> None:
    """As ``elapsed``, without a loop."""
    time.sleep(span_s)
