"""Joins calls that come while others are being served into one: a group commit.

The first of them is served at once. Those that come meanwhile wait for it, and then go together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from gridlease_kernel.faults import Unreachable

T = TypeVar("T")
R = TypeVar("R")


class Together(Generic[T, R]):
    """Calls of one kind.

    Args:
        serve: Answers many at once, in the order asked.
        most: So many go together at most.
        lanes: So many groups are served side by side.
    """

    def __init__(
        self, serve: Callable[[Sequence[T]], Awaitable[Sequence[R]]], most: int, lanes: int
    ) -> None:
        self._serve = serve
        self._most = most
        self._lanes = lanes
        self._waiting: list[tuple[T, asyncio.Future[R]]] = []
        self._busy: set[asyncio.Task[None]] = set()

    async def __call__(self, asked: T) -> R:
        """Its answer; what its group raises, it raises."""
        answer: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((asked, answer))
        if len(self._busy) < self._lanes:
            lane = asyncio.create_task(self._run())
            self._busy.add(lane)
            lane.add_done_callback(self._busy.discard)
        return await answer

    async def _run(self) -> None:
        while self._waiting:
            group = self._waiting[: self._most]
            del self._waiting[: self._most]
            try:
                await self._answer(group)
            except asyncio.CancelledError:
                for _, answer in group:
                    answer.cancel()
                raise

    async def _answer(self, group: Sequence[tuple[T, asyncio.Future[R]]]) -> None:
        try:
            answers = await self._serve([asked for asked, _ in group])
        except Exception as error:  # noqa: BLE001 - handed to those who asked
            if len(group) > 1 and not isinstance(error, Unreachable):
                for each in group:  # one of them is at fault: the others do not suffer for it
                    await self._answer([each])
                return
            for _, answer in group:
                if not answer.done():
                    answer.set_exception(error)
            return
        for (_, answer), found in zip(group, answers, strict=True):
            if not answer.done():
                answer.set_result(found)
