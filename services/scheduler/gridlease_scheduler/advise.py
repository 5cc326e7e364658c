"""The slow path of the leader: every few seconds, what the optimiser says about the whole fleet.

The advice speaks of an instant that is past when it arrives. It orders choices and never makes
one: the fast path looks it up, and what it places is checked against locked rows as ever.
"""

from __future__ import annotations

import asyncio
import logging

from gridlease_kernel.faults import Unreachable

from .domain.slow.advice import NO_ADVICE, NO_LOOKUP, Advice, Problem, advise, lookup, problem
from .domain.snapshot import Snapshot
from .ports import Optimiser

_LOG = logging.getLogger(__name__)


class Advise:
    """The use case; one for each term of leadership. ``newest``: what the optimiser said
    last; ``lookup``: the same, as the fast path asks for it."""

    def __init__(self, optimiser: Optimiser) -> None:
        self._optimiser = optimiser
        self._asked: Problem | None = None
        self.newest: Advice = NO_ADVICE
        self.lookup = NO_LOOKUP

    async def __call__(self, snapshot: Snapshot) -> Advice:
        """The newest advice; without an answer the last one stays."""
        asked = await asyncio.to_thread(problem, snapshot)
        if not asked.classes:
            self._asked, self.newest, self.lookup = asked, NO_ADVICE, NO_LOOKUP
        elif asked != self._asked:
            try:
                solution = await self._optimiser.solve(asked)
            except Unreachable as fault:
                _LOG.warning("the slow path waits: %s", fault.message)
                return self.newest
            self._asked, self.newest = asked, advise(solution, snapshot.now_ms)
            self.lookup = lookup(self.newest)
        return self.newest
