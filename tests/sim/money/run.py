"""Runs of the billing simulator: a seed is a run, a run is worlds of some ten thousand events."""

from __future__ import annotations

import asyncio
import hashlib
import traceback
from dataclasses import dataclass, field, replace

from gridlease_billing.domain.grant_row import Cause, State

from tests.sim.money.broken import BrokenError, insist
from tests.sim.money.memory import MemoryBooks
from tests.sim.money.meters import tariffs
from tests.sim.money.oracle import Oracle, due_nano
from tests.sim.money.papers import Papers
from tests.sim.money.tables import Tables
from tests.sim.money.town import PROFILES, TERMS, Town

WORLD = 10_000  # events of one world
_WHOLE_EVERY = 400  # events between two looks at the whole book
_DRAIN_STEPS = 100_000
_CLOSE_AGAIN = 400  # steps


class Pen:
    """Signs by digest: quick, and as hard to forge for who does not know how."""

    def key(self, node):
        return f"U{node}"

    def owns(self, lease, node):
        """Any node may sign: who is not the owner is told by its connection."""

    def sign(self, report):
        counters = sorted(report.counters.items())
        text = f"{report.lease_id} {report.spool_id} {report.phase} {report.final} {counters}"
        return replace(report, text=text, signature=self._of(text))

    def holds(self, _key, text, signature):
        return signature == self._of(text)

    def _of(self, text):
        return hashlib.blake2b(text.encode(), digest_size=8).digest()


@dataclass
class Outcome:
    """What worlds went through. ``drift_nano``: of charges from the nodes' own truth."""

    worlds: int = 0
    events: int = 0
    calls: int = 0
    leases: int = 0
    told_nano: int = 0
    drift_nano: int = 0
    late_nano: int = 0
    met: dict[str, int] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)

    def add(self, other):
        for name in ("worlds", "events", "calls", "leases", "told_nano", "drift_nano", "late_nano"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for kind, count in other.met.items():
            self.met[kind] = self.met.get(kind, 0) + count
        self.broken += other.broken
        return self


def profile_of(number):
    """The name of the profile of a run's world of this number."""
    return sorted(PROFILES)[number % len(PROFILES)]


def world(seed, number, events=WORLD, profile=None):
    """One world in memory, from its first price to the last lease's end."""
    name = profile or profile_of(number)
    outcome = Outcome(worlds=1)
    try:
        asyncio.run(_live(f"{seed}:{number}", PROFILES[name], events, outcome))
    except Exception as broken:  # noqa: BLE001 - whatever it is, the run says which world showed it
        where = "" if isinstance(broken, BrokenError) else traceback.format_exc(limit=-6)
        words = " ".join([type(broken).__name__, *map(str, broken.args), where])
        outcome.broken.append(f"{seed}:{number} ({name}) after {outcome.events}: {words}")
    return outcome


def _open(town):
    tables = Tables()
    tables.tariffs = tariffs(town.seed, town.clock.now_ms)
    oracle = Oracle(tables, TERMS, town.random)
    oracle.now_ms, oracle.holds = town.clock.database_ms, town.pen.holds
    return MemoryBooks(tables, town.clock, town.random, oracle, town), oracle


async def _live(seed, profile, events, outcome):
    town = Town(seed, profile, Pen(), _open)
    crash, town.profile = profile.crash, replace(profile, crash=0.0)
    await town.begin()
    town.after(1, Papers(town).turn)
    town.profile = replace(profile, crash=crash)
    due = _WHOLE_EVERY
    try:
        while town.events < events:
            act, args = town.pop()
            await act(*args)
            if town.events >= due:
                town.oracle.whole()
                due = town.events + _WHOLE_EVERY
        await _drain(town)
        town.oracle.whole()
        for kind, _, _ in town.oracle.tables.journals:
            town.meet(f"journal {kind}")
        _truth(town, outcome)
    finally:
        outcome.events, outcome.calls, outcome.met = town.events, town.calls, town.met
        for settler in town.settlers:
            await settler.close()


async def _drain(town):
    """No more faults and no more work: everything comes to its end."""
    town.quiet = True
    tables = town.oracle.tables
    for step in range(_DRAIN_STEPS):
        if step % _CLOSE_AGAIN == 0:  # what was asked for long ago may be admitted only now
            for lease in sorted(tables.live):
                await town.close(lease, 0, Cause.STOPPED)
        if not any(it.tasks for it in town.nodes.values() if not it.dead):
            if not tables.live:
                break
            town.clock.now_ms += TERMS.late_after_ms  # for those whose nodes are dead
        act, args = town.pop()
        await act(*args)
    insist(not tables.live, "leases never end", sorted(tables.live)[:3])
    insist(
        all(held == 0 for _, held in tables.balances.values()), "a hold is left", tables.balances
    )


def _truth(town, outcome):
    """Each charge beside the true counters of the node, and the rates that it was told."""
    exact = not town.profile.jump and not town.profile.drift_ppm
    for name, lease in town.oracle.tables.leases.items():
        row, own = lease.read().row, town.oracle.accounts[name]
        insist(row.state is State.FINAL, "not final", row)
        node = town.nodes.get(row.ask.node)
        task = node and (node.ended.get(name) or node.tasks.get(name))
        outcome.leases += 1
        outcome.told_nano += row.charged_nano
        if task is None or not own.last_heard or own.lied:
            continue
        ran = {(segment, "run"): ns for segment, ns in task.run.items()}
        for segment, rate in task.rates.items():
            insist(rate == row.segments[segment - 1].rate_nano_per_hour, "told another rate", row)
        truth = sum(ns * task.rates[n] // 3_600_000_000_000 for n, ns in task.run.items())
        if ("RUN_AHEAD_OF_TIME", name) in town.oracle.tables.alarms:
            # The database's clock went back: what it could not believe is in suspense, with alarm.
            insist(row.charged_nano <= truth, "charged more than ran", row, task.run)
            continue
        if exact:
            insist(lease.suspense_ns == 0, "an honest node ran beyond its grant", row, task.run)
        else:
            truth = due_nano(row.segments, ran, {})
        told = row.charged_nano + sum(it.amount_nano for it in lease.corrections)
        outcome.drift_nano += abs(told - truth)
        outcome.late_nano += told - row.charged_nano
        insist(told == truth, "charged is not what ran", row, task.run)
