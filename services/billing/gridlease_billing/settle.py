"""Folds a node's counters, rates and posts them, and renews or refuses its grants: one commit."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from gridlease_mesh import meter_report

from gridlease_billing.domain.grant_row import Answer, Ask, Report, State, Terms
from gridlease_billing.domain.means import Means
from gridlease_billing.domain.settlement import Alarm, merged, not_yours, unbelieved
from gridlease_billing.domain.settlement import settle as decide
from gridlease_billing.domain.tick import Known
from gridlease_billing.domain.usage import Stored
from gridlease_billing.late_usage import charge_late
from gridlease_billing.meter_charge import charge_meters
from gridlease_billing.ports import Books, Change, Work

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

    async def work(tx: Work) -> Settled:
        stored = await tx.leases.lock_gangs({it.lease_id for it in reports}, node)
        asks = [it.row.ask for it in stored.values()]
        wallets = await tx.ledger.lock_wallets({ask.tenant for ask in asks})
        now = await tx.now()
        spent = await tx.leases.spent_nano({ask.job for ask in asks if ask.budget_nano is not None})
        prices = await tx.prices.in_force(
            {(ask.chip, ask.tier) for ask in asks if _live(stored[ask.lease_id])}, now.ms
        )
        own = {lease: it.row.ask for lease, it in stored.items() if it.row.ask.node == node}
        honest, refused, alarms = _believed(reports, own, proof)
        means = Means({tenant: it.available_nano for tenant, it in wallets.items()}, spent)
        settled = decide(stored, merged(honest), prices, means, now.ms, terms)
        changes = [
            Change(before, after, effect)
            for before, after, effect in settled.steps
            if after != before
        ]
        for lease, found in settled.parked.items():
            _LOG.error("a lease is parked", extra={"lease": lease, "found": found})
        await tx.leases.update(changes)
        await tx.evidence.keep_signed([it for it in honest if it.signature], now.ms)
        await tx.ledger.post(changes, wallets, now.ms)
        await charge_meters(tx, changes, now.ms)
        await charge_late(tx, changes, now.ms, terms)
        for alarm in await tx.evidence.raise_alarms([*alarms, *settled.alarms], now.ms):
            _LOG.error("a meter report is not believed", extra={"alarm": alarm.kind, **_who(alarm)})
        answers = {**settled.answers, **refused}
        known = await tx.leases.quick(own)
        told = tuple(answers.get(it.lease_id) or not_yours(it) for it in reports)
        return Settled(told, known, now.ms)

    return await books.run(work)


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


def _who(alarm: Alarm) -> dict[str, str]:
    return {"lease": alarm.lease_id, "node": alarm.node, **alarm.facts}


def _live(stored: Stored) -> bool:
    return stored.row.state is State.OPEN
