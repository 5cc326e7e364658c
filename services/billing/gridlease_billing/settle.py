"""Folds a node's counters, rates and posts them, and renews or refuses its grants: one commit."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from gridlease_mesh import meter_report

from gridlease_billing.domain import grant
from gridlease_billing.domain.evidence import Heard, heard
from gridlease_billing.domain.grant_row import Answer, Ask, GrantRow, Report, State, Terms
from gridlease_billing.domain.means import Means
from gridlease_billing.domain.settlement import Alarm, merged, not_yours, unbelieved
from gridlease_billing.domain.settlement import settle as decide
from gridlease_billing.domain.tick import Known
from gridlease_billing.domain.usage import Stored
from gridlease_billing.late_usage import charge_late
from gridlease_billing.meter_charge import charge_meters
from gridlease_billing.ports import Books, Change, Wallet, Work
from gridlease_billing.suspense import Told, suspend

_LOG = logging.getLogger(__name__)


class Proof(Protocol):
    """Did the owner of this public key sign this text?"""

    def __call__(self, public_key: str, report: str, signature: bytes, /) -> bool: ...


@dataclass(frozen=True, slots=True)
class Settled:
    """``known``: leases whose counters may now move by themselves; ``now_ms``: the database's."""

    answers: tuple[Answer, ...]
    known: Mapping[str, Known]
    now_ms: int


async def settle(
    books: Books,
    node: str,
    reports: Sequence[Report],
    terms: Terms,
    proof: Proof = meter_report.holds,
) -> list[Answer]:
    """One answer for each report, in their order. ``node``: as the connection says.

    Idempotent: counters are cumulative, and what is posted is the difference of totals.
    """
    return list((await decide_all(books, node, reports, terms, proof)).answers)


async def decide_all(
    books: Books, node: str, reports: Sequence[Report], terms: Terms, proof: Proof
) -> Settled:
    """As ``settle``, with what ticks need to know."""
    return (await decide_together(books, [(node, reports)], terms, proof))[0]


async def decide_together(
    books: Books, calls: Sequence[tuple[str, Sequence[Report]]], terms: Terms, proof: Proof
) -> list[Settled]:
    """As ``decide_all`` for the calls of several nodes, each node once: in one transaction."""
    assert len({node for node, _ in calls}) == len(calls), "a node's calls follow each other"

    async def work(tx: Work) -> list[Settled]:
        stored = await tx.leases.lock_gangs(
            {(it.lease_id, node) for node, reports in calls for it in reports}
        )
        asks = [it.row.ask for it in stored.values()]
        wallets = await tx.ledger.lock_wallets({ask.tenant for ask in asks})
        now = await tx.now()
        heard_of = [_hear(node, reports, stored, proof) for node, reports in calls]
        honest = [it for call in heard_of for it in call.honest]
        means = await _means(tx, asks, wallets, now.ms)
        prices = await tx.prices.in_force(
            {ask.kind for ask in asks if _live(stored[ask.lease_id])}, now.ms
        )
        priorities = await tx.prices.priorities(now.ms)
        overdue = _overdue(stored, {it.lease_id for it in honest}, now.ms, terms)
        if overdue:  # what time has ended was billed as it was then; what is told now is late
            await _write(tx, overdue, wallets, now.ms)
            for it in overdue:
                ask, spent_nano = it.after.ask, it.effect.charge_nano + it.effect.hold_nano
                stored = {**stored, ask.lease_id: replace(stored[ask.lease_id], row=it.after)}
                means = means.less(ask, spent_nano)
        settled = decide(stored, merged(honest), prices, means, now.ms, terms, priorities)
        changes = [
            Change(before, after, effect)
            for before, after, effect in settled.steps
            if after != before
        ]
        for lease, found in settled.parked.items():
            _LOG.error("a lease is parked", extra={"lease": lease, "found": found})
        await _write(tx, changes, wallets, now.ms)
        await charge_late(tx, changes, now.ms, terms)
        after = {row.lease_id: row for _, row, _ in settled.steps}
        words = [
            (it, heard(it, stored[it.lease_id].row, now.ms, terms))
            for it in honest
            if it.lease_id in after
        ]
        alarms = [alarm for call in heard_of for alarm in call.alarms]
        alarms += await suspend(tx, stored, after, _told(words), now.ms)
        alarms += await _keep(tx, words, after, now.ms)
        await tx.evidence.keep_doubted([it for call in heard_of for it in call.doubted], now.ms)
        for alarm in await tx.evidence.raise_alarms(alarms, now.ms):
            _LOG.error("a meter report is not believed", extra={"alarm": alarm.kind, **_who(alarm)})
        known = await tx.leases.quick({lease for call in heard_of for lease in call.own})
        return [call.answered(settled.answers, known, now.ms) for call in heard_of]

    return await books.run(work)


@dataclass(frozen=True, slots=True)
class _Call:
    """A node's call: its leases among those told of, and which reports of them are its word."""

    reports: Sequence[Report]
    own: Mapping[str, Ask]
    honest: Sequence[Report]
    refused: Mapping[str, Answer]
    alarms: Sequence[Alarm]

    @property
    def doubted(self) -> list[tuple[str, Report]]:
        return _refused(self.reports, self.honest, self.refused)

    def answered(
        self, answers: Mapping[str, Answer], known: Mapping[str, Known], now_ms: int
    ) -> Settled:
        """Of what was decided, what this node is told: of its own leases."""
        mine = {lease: it for lease, it in answers.items() if lease in self.own}
        mine |= self.refused
        told = tuple(mine.get(it.lease_id) or not_yours(it) for it in self.reports)
        return Settled(
            told, {lease: it for lease, it in known.items() if lease in self.own}, now_ms
        )


def _hear(
    node: str, reports: Sequence[Report], stored: Mapping[str, Stored], proof: Proof
) -> _Call:
    own = {
        it.lease_id: stored[it.lease_id].row.ask
        for it in reports
        if it.lease_id in stored and stored[it.lease_id].row.ask.node == node
    }
    honest, refused, alarms = _believed(reports, own, proof)
    return _Call(reports, own, honest, refused, alarms)


async def _means(
    tx: Work, asks: Sequence[Ask], wallets: Mapping[str, Wallet], now_ms: int
) -> Means:
    unpaid = await tx.receivables.overdue({ask.tenant for ask in asks}, now_ms)
    spent = await tx.leases.spent_nano({ask.job for ask in asks if ask.budget_nano is not None})
    return Means(
        {tenant: it.available_nano for tenant, it in wallets.items()},
        spent,
        {tenant: it.hint for tenant, it in unpaid.items()},
    )


def _believed(
    reports: Sequence[Report], own: Mapping[str, Ask], proof: Proof
) -> tuple[list[Report], dict[str, Answer], list[Alarm]]:
    """The reports of the node's own leases that it signed, where it has a key; the rest refused."""
    honest: list[Report] = []
    refused: dict[str, Answer] = {}
    alarms: list[Alarm] = []
    for it in reports:
        ask = own.get(it.lease_id)
        if ask is None:
            continue
        if not ask.node_key or proof(ask.node_key, it.text, it.signature):
            honest.append(it)
        else:
            refused[it.lease_id], alarm = unbelieved(it, ask)
            alarms.append(alarm)
    return honest, refused, alarms


def _overdue(
    stored: Mapping[str, Stored], told: Collection[str], now_ms: int, terms: Terms
) -> list[Change]:
    """Of the leases that something is told of, those that time alone has made final."""
    found: list[Change] = []
    for lease in sorted(told):
        row = stored[lease].row
        if row.state is State.FINAL or not row.segments:
            continue
        with contextlib.suppress(AssertionError):  # the decision parks it
            over = grant.expire(row, now_ms, terms)
            if over.state is State.FINAL:
                found.append(Change(row, over, grant.effect(row, over)))
    return found


async def _write(
    tx: Work, changes: Sequence[Change], wallets: Mapping[str, Wallet], now_ms: int
) -> None:
    await tx.leases.update(changes)
    await tx.ledger.post(changes, wallets, now_ms)
    await charge_meters(tx, changes, now_ms)


def _told(words: Sequence[tuple[Report, Heard]]) -> dict[str, Told]:
    """By lease: how far run time was told, and why all of it may not be charged."""
    found: dict[str, Told] = {}
    for report, word in words:
        found[report.lease_id] = found.get(report.lease_id, Told()).further(word)
    return found


async def _keep(
    tx: Work, words: Sequence[tuple[Report, Heard]], rows: Mapping[str, GrantRow], now_ms: int
) -> list[Alarm]:
    """Keeps what proves charges apart from what was not believed; the alarms about the latter."""
    signed = [
        it
        for report, word in words
        if report.signature and rows[report.lease_id].ask.node_key
        for it in word.proofs
    ]
    await tx.evidence.keep_proofs(signed, now_ms)
    doubted = [(kind, report) for report, word in words for kind in word.doubts]
    await tx.evidence.keep_doubted(doubted, now_ms)
    return [
        Alarm(kind, (ask := rows[report.lease_id].ask).tenant, ask.lease_id, ask.node, facts)
        for report, word in words
        for kind, facts in word.doubts.items()
    ]


def _refused(
    reports: Sequence[Report], honest: Sequence[Report], refused: Mapping[str, Answer]
) -> list[tuple[str, Report]]:
    believed = {id(it) for it in honest}
    return [
        (refused[it.lease_id].reason, it)
        for it in reports
        if it.lease_id in refused and id(it) not in believed
    ]


def _who(alarm: Alarm) -> dict[str, str]:
    return {"lease": alarm.lease_id, "node": alarm.node, **alarm.facts}


def _live(stored: Stored) -> bool:
    return stored.row.state is State.OPEN
