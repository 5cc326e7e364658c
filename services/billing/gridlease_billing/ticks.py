"""Settles what needs no decision without one: the ticks of many nodes in one statement.

A report that only advances counters of a lease in the middle of its grant changes nothing but
money. Such reports of all nodes that call at the same time are folded and charged together; any
other report, and any that the database would not take, is settled by a decision.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter

from gridlease_kernel.clock import Clock

from gridlease_billing.decisions import Decisions
from gridlease_billing.domain.grant_row import Answer, Report, Terms
from gridlease_billing.domain.tick import CATALOGUE, Known, only_counts
from gridlease_billing.ports import Books, Now, Work
from gridlease_billing.settle import Proof

MOST_KNOWN = 200_000  # leases that a process remembers; of others every report is decided
MOST_AT_ONCE = 100_000  # ticks in one go
PARTS = 2  # statements of one go, beside each other: a tenant's ticks are all in one of them
_WORTH_PARTING = 50_000  # ticks: two walks of an index cost more than one, and end sooner


@dataclass(frozen=True, slots=True)
class Tick:
    """A report, and the counters of the lease's current segment."""

    known: Known
    report: Report
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Folded:
    now: Now
    refused: frozenset[int]  # ids of meters


class Settler:
    """Answers nodes: by ticks where that is enough."""

    def __init__(
        self, books: Books, terms: Terms, proof: Proof, clock: Clock, gather_ms: int = 0
    ) -> None:
        """``gather_ms``: how long ticks wait for others, to share a transaction."""
        self._books = books
        self._decisions = Decisions(books, terms, proof)
        self._proof = proof
        self._clock = clock
        self._gather_s = gather_ms / 1_000
        self._known: OrderedDict[str, Known] = OrderedDict()
        self._database_ahead_ms: int | None = None  # of this host's clock; None = never asked
        self._waiting: list[tuple[Sequence[Tick], asyncio.Future[_Folded]]] = []
        self._folding: asyncio.Task[None] | None = None

    async def settle(self, node: str, reports: Sequence[Report]) -> list[Answer]:
        """One answer for each report, in their order; as ``settle.settle``."""
        ticks = self._ticks(node, reports)
        answers = await self._fold(ticks) if ticks else {}
        rest = [it for it in reports if it.lease_id not in answers]
        if rest:
            decided = await self._decisions.decide(node, rest)
            self._note(decided.now_ms)
            for it in rest:
                self._remember(it.lease_id, decided.known.get(it.lease_id))
            answers = {**answers, **{it.lease_id: it for it in decided.answers}}
        return [answers[it.lease_id] for it in reports]

    async def close(self) -> None:
        """Ends what is under way."""
        await self._decisions.close()
        if self._folding is not None:
            self._folding.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._folding
        for _, told in self._waiting:  # what was not begun is not done: they ask again
            if not told.done():
                told.set_exception(ConnectionAbortedError())
        self._waiting.clear()

    def _ticks(self, node: str, reports: Sequence[Report]) -> list[Tick]:
        """Those of ``reports`` that need no decision as far as this process knows."""
        if self._database_ahead_ms is None:
            return []
        now_ms = self._clock.boottime_ns() // 1_000_000 + self._database_ahead_ms
        ticks: dict[str, Tick] = {}
        for it in reports:
            known = self._known.get(it.lease_id)
            if known is None or it.lease_id in ticks or not only_counts(it, known, node, now_ms):
                continue
            if known.node_key and not self._proof(known.node_key, it.text, it.signature):
                continue  # the decision says why not
            counts = tuple(it.counters.get((known.segment, meter), 0) for meter in CATALOGUE)
            ticks[it.lease_id] = Tick(known, it, counts)
        if len({it.lease_id for it in reports}) != len(reports):
            return []  # several of one lease are merged by a decision
        return list(ticks.values())

    async def _fold(self, ticks: Sequence[Tick]) -> dict[str, Answer]:
        """The answers to those that were taken; the rest is forgotten, to be decided."""
        told = asyncio.get_running_loop().create_future()
        self._waiting.append((ticks, told))
        if self._folding is None or self._folding.done():
            self._folding = asyncio.create_task(self._drain())
        folded: _Folded = await told
        self._note(folded.now.ms)
        answers: dict[str, Answer] = {}
        for it in ticks:
            if it.known.meter_id in folded.refused:
                self._remember(it.report.lease_id, None)
            else:
                answers[it.report.lease_id] = _answer(it, folded.now.ms)
        return answers

    async def _drain(self) -> None:
        """Folds what waits, all of it together, until nothing does."""
        while self._waiting:
            if self._gather_s:
                await asyncio.sleep(self._gather_s)
            batch: list[tuple[Sequence[Tick], asyncio.Future[_Folded]]] = []
            size = 0
            while self._waiting and (not batch or size + len(self._waiting[0][0]) <= MOST_AT_ONCE):
                batch.append(self._waiting.pop(0))
                size += len(batch[-1][0])
            try:
                folded = await fold_all(self._books, [it for ticks, _ in batch for it in ticks])
            except BaseException as error:  # whatever it is, those who wait hear of it
                for _, told in batch:
                    if not told.done():
                        told.set_exception(
                            error if isinstance(error, Exception) else ConnectionAbortedError()
                        )
                if not isinstance(error, Exception):
                    raise
                continue
            for _, told in batch:
                if not told.done():
                    told.set_result(folded)

    def _note(self, database_ms: int) -> None:
        self._database_ahead_ms = database_ms - self._clock.boottime_ns() // 1_000_000

    def _remember(self, lease_id: str, known: Known | None) -> None:
        self._known.pop(lease_id, None)
        if known is not None:
            self._known[lease_id] = known
            while len(self._known) > MOST_KNOWN:
                self._known.popitem(last=False)


async def fold_all(books: Books, ticks: Sequence[Tick]) -> _Folded:
    """Folds ticks in a few transactions that share no balance, so that none waits for another.

    Should one of them fail, others may be in the books: to repeat all of it changes nothing.
    """
    if len(ticks) < _WORTH_PARTING:
        return await fold(books, ticks)
    parts: list[list[Tick]] = [[] for _ in range(PARTS)]
    for it in ticks:
        parts[it.known.account % PARTS].append(it)
    done = await asyncio.gather(*(fold(books, it) for it in parts if it), return_exceptions=True)
    for error in done:
        if isinstance(error, BaseException):
            raise error
    folded = [it for it in done if isinstance(it, _Folded)]
    first = min((it.now for it in folded), key=lambda now: now.ms)
    return _Folded(first, frozenset().union(*(it.refused for it in folded)))


async def fold(books: Books, ticks: Sequence[Tick]) -> _Folded:
    """Folds and charges ticks in one transaction, and keeps what of them was signed."""
    counts_of: dict[int, tuple[int, ...]] = {}
    for it in ticks:  # a report and its older copy may have waited together
        counts_of[it.known.meter_id] = tuple(
            map(max, it.counts, counts_of.get(it.known.meter_id, it.counts))
        )
    ids = sorted(counts_of)
    rows = [counts_of[key] for key in ids]
    columns = (list(map(itemgetter(n), rows)) for n in range(len(CATALOGUE)))
    counts = [column if any(column) else [] for column in columns]  # zeros say nothing: not sent
    signed = [it for it in ticks if it.report.signature and it.known.node_key]

    async def work(tx: Work) -> _Folded:
        refused = await tx.ledger.tick(ids, counts)
        now = await tx.now()
        if signed:
            taken = [it.report for it in signed if it.known.meter_id not in refused]
            await tx.evidence.keep_signed(taken, now.ms)
        return _Folded(now, frozenset(refused))

    return await books.run(work)


def _answer(tick: Tick, now_ms: int) -> Answer:
    known = tick.known
    return Answer(
        tick.report.lease_id,
        max(0, known.ends_at_ms - now_ms),
        last=False,
        reason="",
        segment=known.segment,
        rate_nano_per_hour=known.rate_nano_per_hour,
        final_acknowledged=False,
    )
