"""The protocol's rules, one method each, as the shells of the simulator follow them.

Every method calls the real state machines. A trap (``traps``) replaces one of them by the naive
design that it names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from gridlease_agent.domain import lease as agent
from gridlease_agent.domain.spool import Clocks, ExitRecord, Shim, Spool, StopOrder, Wanted
from gridlease_billing.domain import grant
from gridlease_scheduler.domain import lease as scheduler

if TYPE_CHECKING:
    from tests.sim.node import Node, Sandbox
    from tests.sim.scheduler import Leader


class Rules:
    """The protocol as it is meant."""

    terms = None  # the scheduler's, when a trap has its own

    # billing
    def authorize(
        self,
        existing: Mapping[str, grant.GrantRow],
        asks: Sequence[grant.Ask],
        quotes: Mapping[str, grant.Quote],
        funds: grant.Funds,
        now_ms: int,
        terms: grant.Terms,
    ) -> grant.Authorized:
        return grant.authorize(existing, asks, quotes, funds, now_ms, terms)

    def close(
        self,
        row: grant.GrantRow | None,
        lease_id: str,
        notice_ms: int,
        cause: grant.Cause,
        now_ms: int,
        terms: grant.Terms,
    ) -> grant.Closed:
        return grant.close(row, lease_id, notice_ms, cause, now_ms, terms)

    def settle(
        self,
        rows: Sequence[grant.GrantRow],
        reports: Mapping[str, grant.Report],
        quotes: Mapping[str, grant.Quote],
        funds: grant.Funds,
        now_ms: int,
        terms: grant.Terms,
    ) -> grant.Settled:
        return grant.settle(rows, reports, quotes, funds, now_ms, terms)

    # scheduler
    def observe(
        self,
        leases: Iterable[scheduler.Lease],
        node_id: str,
        sightings: Iterable[scheduler.Sighting],
    ) -> scheduler.Observed:
        return scheduler.observe(leases, node_id, sightings)

    def may_write(self, leader: Leader) -> bool:
        """Inside the transaction: is the epoch row still this leader's?"""
        return leader.epoch == leader.database.epoch

    def checks_inside(self, leader: Leader) -> bool:
        """Inside the transaction: task still pending, no other lease on task or device."""
        return True

    def close_timed_out(self, leader: Leader, lease: scheduler.Lease) -> scheduler.Lease:
        """Nothing is known: ask again."""
        return lease

    # agent
    def apply_desired_set(
        self,
        spool: Spool,
        now: Clocks,
        generation: int,
        run: Iterable[Wanted],
        stop: Iterable[StopOrder],
    ) -> Spool:
        return agent.apply_desired_set(spool, now, generation, run, stop)

    def grant_answer(
        self, spool: Spool, sent: Clocks, received: Clocks, answer: agent.Answer
    ) -> Spool:
        return agent.grant_answer(spool, sent, received, answer)

    def recover(
        self, spool: Spool, now: Clocks, shims: Mapping[str, Shim], exits: Mapping[str, ExitRecord]
    ) -> Spool:
        return agent.recover(spool, now, shims, exits)

    def start(self, node: Node, lease_id: str, spool_after: Spool) -> bool:
        """On disk, then exec. False: the agent has crashed on the way."""
        node.disk = spool_after
        if node.crashes_now():
            return False
        node.execute(lease_id)
        return True

    def shim_kills(self, sandbox: Sandbox) -> bool:
        """The shim holds the deadline, whether or not an agent lives."""
        return True

    def deletable(self, spool: Spool, lease_id: str) -> bool:
        return agent.deletable(spool, spool.rows[lease_id])

    def sync_report(self, spool: Spool) -> tuple[agent.Sighting, ...]:
        return agent.sync_report(spool)

    def settle_report(self, node: Node, spool: Spool) -> tuple[agent.Report, ...]:
        return agent.settle_report(spool)

    def spool_id(self, spool: Spool) -> str:
        return spool.spool_id
