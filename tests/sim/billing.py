"""Billing's shell in the simulator: rows and books in memory, one call = one transaction."""

from __future__ import annotations

from collections.abc import Callable

from gridlease_billing.domain import grant
from gridlease_billing.domain.grant import Ask, Cause, Effect, Funds, GrantRow, Quote, Report

from tests.sim.oracle import Oracle
from tests.sim.rules import Rules
from tests.sim.world import BILLING, World

RATES_NANO = (3_600_000_000, 5_400_000_000, 2_000_000_001)


class Billing:
    """PostgreSQL with billing's tables, and whatever process happens to answer."""

    def __init__(self, world: World, rules: Rules, oracle: Oracle, credit_nano: int) -> None:
        self.world, self.rules, self.oracle = world, rules, oracle
        self.rows: dict[str, GrantRow] = {}
        self.drift_ppm = world.drift()
        self.stepped_ms = 0
        self.credit_nano = credit_nano
        self.budgets: dict[str, int | None] = {}
        self.charged_nano = 0
        self.held_nano = 0
        self.quote = Quote(RATES_NANO[0])

    def clock(self) -> int:
        """The database's clock, ms."""
        return self.world.now * (1_000_000 + self.drift_ppm) // 1_000_000 + self.stepped_ms

    def sweep(self) -> None:
        """What time alone does; any process, any time."""
        for row in list(self.rows.values()):
            after = grant.expire(row, self.clock(), BILLING)
            if after is not row:
                self._write(after, grant.effect(row, after))

    def on_authorize(self, asks: tuple[Ask, ...], reply: Callable[..., None]) -> None:
        existing = {a.lease_id: self.rows[a.lease_id] for a in asks if a.lease_id in self.rows}
        quotes = {ask.lease_id: self.quote for ask in asks}
        decided = self.rules.authorize(
            existing, asks, quotes, self._funds(asks[0].job), self.clock(), BILLING
        )
        for row in decided.rows:
            self._write(row, grant.effect(self.rows.get(row.lease_id), row))
        self.oracle.committed(self)
        reply(decided.answers)

    def on_close(
        self, lease_id: str, notice_ms: int, cause: Cause, reply: Callable[..., None]
    ) -> None:
        closed = self.rules.close(
            self.rows.get(lease_id), lease_id, notice_ms, cause, self.clock(), BILLING
        )
        self._write(closed.row, closed.effect)
        self.oracle.committed(self)
        reply(lease_id, closed.wait_ms)

    def on_settle(self, node: str, reports: dict[str, Report], reply: Callable[..., None]) -> None:
        answers = []
        gangs = {}
        for lease_id, report in reports.items():
            row = self.rows.get(lease_id)
            if row is None or row.ask.node not in ("", node):
                answers.append(grant.unknown(report))
            else:
                gangs[row.ask.gang or lease_id] = row
        for key, first in gangs.items():
            rows = (
                [row for row in self.rows.values() if row.ask.gang == key]
                if first.ask.gang
                else [first]
            )
            settled = self.rules.settle(
                rows,
                reports,
                {row.lease_id: self.quote for row in rows},
                self._funds(first.ask.job),
                self.clock(),
                BILLING,
            )
            for row, effect in zip(settled.rows, settled.effects, strict=True):
                self._write(row, effect)
            answers += settled.answers
            self.oracle.committed(self)
        reply(tuple(answers))

    def _funds(self, job: str) -> Funds:
        budget = self.budgets.get(job)
        if budget is not None:
            budget -= sum(
                row.charged_nano + row.held_nano for row in self.rows.values() if row.ask.job == job
            )
        return Funds(self.credit_nano - self.charged_nano - self.held_nano, budget)

    def _write(self, row: GrantRow, effect: Effect) -> None:
        before = self.rows.get(row.lease_id)
        if before is row:
            return
        self.rows[row.lease_id] = row
        self.charged_nano += effect.charge_nano
        self.held_nano += effect.hold_nano
        self.oracle.booked(self, before, row, effect)
        if self.world.trace is not None and (
            before is None or (before.state, before.ends_at_ms) != (row.state, row.ends_at_ms)
        ):
            self.world.say(f"B   {row.lease_id} {row.state} ends={row.ends_at_ms} {row.cause}")
