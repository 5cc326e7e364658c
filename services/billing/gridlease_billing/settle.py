"""Folds a node's counters, rates and posts them, and renews or refuses its grants: one commit."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from gridlease_billing.domain.grant_row import Answer, Report, State, Terms
from gridlease_billing.domain.means import Means
from gridlease_billing.domain.settlement import merged, not_yours
from gridlease_billing.domain.settlement import settle as decide
from gridlease_billing.domain.usage import Stored
from gridlease_billing.ports import Books, Change, Work

_LOG = logging.getLogger(__name__)


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
        for lease, found in settled.parked.items():
            _LOG.error("a lease is parked", extra={"lease": lease, "found": found})
        await tx.leases.update(changes)
        await tx.ledger.post(changes, wallets, now.ms)
        return settled.answers

    answers = await books.run(work)
    return [answers.get(it.lease_id) or not_yours(it) for it in reports]


def _live(stored: Stored) -> bool:
    return stored.row.state is State.OPEN
