"""Budgets that run out, on a virtual clock: work stops in time; no more is spent than there was.

Cut off, it stops at its grant's end; connected, when its notice is over.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from gridlease_agent.domain import lease
from gridlease_agent.domain.task import Task
from gridlease_agent.runtimes.states import Running
from gridlease_billing.domain import grant

from tests.integration.agent import cut_off
from tests.integration.agent.cut_off import HOUR_MS, NODE, RATE_NANO, Billing, CutOff

NOTICE_MS = 120_000
TERMS = grant.Terms(grant_ms=120_000)
NANO_A_SECOND = RATE_NANO // 3_600
SECOND_NS = 1_000_000_000
LEASES = 100


class Purses(Billing):
    """Billing where each lease has a budget of its own, and nothing else."""

    def __init__(self, clock: Any) -> None:
        super().__init__(clock)
        self.budgets: dict[str, int] = {}
        self.refused_ns: dict[str, int] = {}
        self.most: dict[str, int] = {}  # charged and held at once, ever

    def left(self, lease_id: str) -> int:
        mine = [it for it in self.effects if it.lease_id == lease_id]
        spent = sum(it.charge_nano + it.hold_nano for it in mine)
        self.most[lease_id] = max(self.most.get(lease_id, 0), spent)
        return self.budgets[lease_id] - spent

    def grant_first(self, lease_id: str, budget_nano: int) -> None:
        self.budgets[lease_id], self.terms[lease_id] = budget_nano, TERMS
        ask = grant.Ask(lease_id, job=f"j-{lease_id}", node=NODE, notice_ms=NOTICE_MS)
        funds, quotes = grant.Funds(10**18, budget_nano), {lease_id: grant.Quote(RATE_NANO)}
        decided = grant.authorize({}, [ask], quotes, funds, self.now_ms(), TERMS)
        self._write(decided.rows[0], None)

    def _settle(self, spool_id: str, report: lease.Report) -> lease.Answer:
        name = report.lease_id
        cut_off.FUNDS = grant.Funds(10**18, self.left(name))
        answer = super()._settle(spool_id, report)
        self.left(name)
        if answer.reason == "BUDGET_EXHAUSTED":
            self.refused_ns.setdefault(name, self._clock.boottime_ns())
        return answer


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CutOff:
    monkeypatch.setattr(cut_off, "Billing", Purses)
    monkeypatch.setattr(cut_off, "FUNDS", cut_off.FUNDS)
    world = CutOff(tmp_path, 1)
    draw = random.Random(7)
    for n in range(LEASES):
        lease_id = f"ls-{n:02d}"
        seconds = 240 + draw.randrange(0, 240)  # the first grant and its notice, and some more
        _purses(world).grant_first(lease_id, seconds * NANO_A_SECOND + draw.randrange(10**6))
        world.scheduler.tasks[lease_id] = Task(
            lease_id,
            f"projects/p/jobs/j-{lease_id}/tasks/0",
            "tenants/t",
            commands=("true",),
            env=(("GRIDLEASE_EMULATED_MS", str(100 * HOUR_MS)),),
            notice_ms=NOTICE_MS,
        )
    world.scheduler.generation += 1
    return world


def _purses(world: CutOff) -> Purses:
    assert isinstance(world.billing, Purses)
    return world.billing


async def _pass(world: CutOff, seconds: int, step: float = 1.0) -> dict[str, int]:
    """When each sandbox had started, by the node's clock."""
    started: dict[str, int] = {}
    for _ in range(round(seconds / step)):
        world.clock.advance(step)
        await world.turns(1)
        for name in world.scheduler.tasks:
            state = world.sandboxes.inspect(name)
            if isinstance(state, Running):
                started.setdefault(name, state.started_boottime_ns)
    return started


def _nothing_overspent(world: CutOff) -> None:
    purses = _purses(world)
    ended = world.ran_ns()
    assert set(ended) == set(purses.budgets), "some still run"
    for name, budget in purses.budgets.items():
        row = purses.rows[name]
        assert purses.charged_nano(name) == row.charged_nano <= budget, name
        assert purses.most[name] <= budget, name
        assert row.held_nano == 0, name
        assert ended[name] <= grant.granted_ns(row), name
        assert row.charged_nano == ended[name] // 1_000, name  # 1 nano-unit a microsecond


async def test_cut_off_for_an_hour_work_stops_at_its_grants_end(world: CutOff) -> None:
    await world.turns(6)
    await _pass(world, 90)
    world.cut(off=True)
    ends_ms = {name: row.ends_at_ms for name, row in _purses(world).rows.items()}
    cut_ms = world.wall_ms()
    await _pass(world, 3_600, 5.0)
    running = [name for name in ends_ms if isinstance(world.sandboxes.inspect(name), Running)]
    assert not running
    world.cut(off=False)
    for _ in range(4):
        world.clock.advance(6.0)
        await world.turns(3)
    _nothing_overspent(world)
    for name, ran_ns in world.ran_ns().items():
        row = _purses(world).rows[name]
        # It ran into its last grant, and not a moment beyond it.
        assert cut_ms < row.segments[0].starts_ms + ran_ns // 10**6 <= ends_ms[name], name


async def test_refused_while_connected_it_has_its_notice_and_no_more(world: CutOff) -> None:
    await world.turns(6)
    started = await _pass(world, 700)
    _nothing_overspent(world)
    purses = _purses(world)
    assert len(purses.refused_ns) == LEASES
    spans = []
    for name, ran_ns in world.ran_ns().items():
        stopped_ns = started[name] + ran_ns
        spans.append((stopped_ns - purses.refused_ns[name]) / SECOND_NS)
    spans.sort()
    worst = max(abs(it - NOTICE_MS / 1_000) for it in spans[: -(-99 * len(spans) // 100)])
    print(f"notice to stop: {spans[0]:.3f} to {spans[-1]:.3f} s, p99 off by {worst:.3f} s")
    assert worst <= 1.0
