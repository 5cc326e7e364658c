"""Decides what nodes ask at the same time together: one transaction for many calls.

A call costs two dozen statements whether it is about eight leases or two hundred. While a few
calls are being decided, those that come wait, and are then decided as one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

from gridlease_billing.domain.grant_row import Report, Terms
from gridlease_billing.ports import Books
from gridlease_billing.settle import Proof, Settled, decide_all, decide_together

AT_ONCE = 2  # transactions beside each other
MOST_TOGETHER = 256  # reports in one: as long as that a tenant's balance is locked


@dataclass(frozen=True, slots=True)
class _Asked:
    node: str
    reports: Sequence[Report]
    told: asyncio.Future[Settled]


class Decisions:
    """What nodes' reports lead to. What one call cannot have, no other call is without."""

    def __init__(self, books: Books, terms: Terms, proof: Proof) -> None:
        self._books = books
        self._terms = terms
        self._proof = proof
        self._under_way = 0
        self._waiting: list[_Asked] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def decide(self, node: str, reports: Sequence[Report]) -> Settled:
        """As ``settle.decide_all``."""
        if self._under_way >= AT_ONCE:
            asked = _Asked(node, reports, asyncio.get_running_loop().create_future())
            self._waiting.append(asked)
            return await asked.told
        self._under_way += 1
        try:
            return await decide_all(self._books, node, reports, self._terms, self._proof)
        finally:
            self._under_way -= 1
            self._go_on()

    async def close(self) -> None:
        """Ends what is decided for those who waited; who still waits hears of it."""
        tasks, waiting = list(self._tasks), self._waiting
        self._waiting = []
        for task in tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        _tell_all(waiting, ConnectionAbortedError())

    def _go_on(self) -> None:
        if self._waiting and self._under_way < AT_ONCE:
            self._under_way += 1
            task = asyncio.create_task(self._decide_waiting())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _decide_waiting(self) -> None:
        try:
            while self._waiting:
                batch = self._next()
                try:
                    await self._decide_batch(batch)
                except asyncio.CancelledError:
                    _tell_all(batch, ConnectionAbortedError())
                    raise
        finally:
            self._under_way -= 1

    def _next(self) -> list[_Asked]:
        """Those who came first, each node once: its next call may be of another spool."""
        batch: list[_Asked] = []
        left: list[_Asked] = []
        nodes: set[str] = set()
        size = 0
        for it in self._waiting:
            size += len(it.reports)
            if it.node in nodes or (batch and size > MOST_TOGETHER):
                left.append(it)
            else:
                batch.append(it)
                nodes.add(it.node)
        self._waiting = left
        return batch

    async def _decide_batch(self, batch: Sequence[_Asked]) -> None:
        """All in one; where that fails each alone, so that who is not the cause gets an answer."""
        calls = [(it.node, it.reports) for it in batch]
        try:
            found = await decide_together(self._books, calls, self._terms, self._proof)
        except Exception as error:  # noqa: BLE001 - whatever it is, its caller hears of it
            if len(batch) > 1:
                for it in batch:
                    await self._decide_batch([it])
            else:
                _tell_all(batch, error)
            return
        for it, settled in zip(batch, found, strict=True):
            if not it.told.done():
                it.told.set_result(settled)


def _tell_all(asked: Sequence[_Asked], error: Exception) -> None:
    for it in asked:
        if not it.told.done():
            it.told.set_exception(error)
