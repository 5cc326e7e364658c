"""Folds a node's counters, rates and posts them, and renews or refuses its grants: one commit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gridlease_billing.domain.grant_row import Answer, GrantRow, Report, State, Terms
from gridlease_billing.domain.means import Means
from gridlease_billing.domain.segment import chargeable, span_ns
from gridlease_billing.domain.settlement import merged, not_yours
from gridlease_billing.domain.settlement import settle as decide
from gridlease_billing.domain.usage import Stored, lines
from gridlease_billing.ports import Books, Change, Work


async def settle(books: Books, node: str, reports: Sequence[Report], terms: Terms) -> list[Answer]:
    """One answer for each report, in their order. ``node``: as the connection says.

    Idempotent: counters are cumulative, and what is posted is the difference of totals.
    """
    by_lease = merged(reports)

    async def work(tx: Work) -> Mapping[str, Answer]:
        stored = await tx.leases.lock_gangs(by_lease, node)
        asks = [it.row.ask for it in stored.values()]
        wallets = await tx.ledger.lock_wallets({ask.tenant for ask in asks})
        now = await tx.now()
        spent = await tx.leases.spent_nano({ask.job for ask in asks if ask.budget_nano is not None})
        prices = await tx.prices.in_force(
            {(ask.chip, ask.tier) for ask in asks if _live(stored[ask.lease_id])}, now.ms
        )
        own = {
            lease: report
            for lease, report in by_lease.items()
            if lease in stored and stored[lease].row.ask.node == node
        }
        means = Means({tenant: it.available_nano for tenant, it in wallets.items()}, spent)
        settled = decide(stored, own, prices, means, now.ms, terms)
        changes = [
            Change(before, after, effect)
            for before, after, effect in settled.steps
            if after != before
        ]
        _check(changes)
        await tx.leases.update(changes)
        await tx.ledger.post(changes, wallets, now.ms)
        return settled.answers

    answers = await books.run(work)
    return [answers.get(it.lease_id) or not_yours(it) for it in reports]


def _live(stored: Stored) -> bool:
    return stored.row.state is State.OPEN


def _check(changes: Sequence[Change]) -> None:
    """I3, at run time: charged <= ran and granted; the lines are the charge."""
    for change in changes:
        row = change.after
        charged_ns = sum(chargeable(row.segments, row.counters))
        assert charged_ns <= span_ns(row.segments), row
        assert row.charged_nano == _lines_nano(row), row


def _lines_nano(row: GrantRow) -> int:
    return sum(line.amount_nano for line in lines(Stored(row, 0, 0)))
