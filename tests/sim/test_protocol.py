"""The lease protocol's real state machines under everything that goes wrong: P1-P8 hold."""

from __future__ import annotations

import pytest

from tests.sim.campaign import campaign, violations
from tests.sim.cluster import PROFILES, Cluster
from tests.sim.traps import TRAPS


@pytest.mark.parametrize("first", range(0, 300, 60))
def test_invariants_hold(first):
    assert violations(range(first, first + 60)) == []


@pytest.mark.slow
def test_invariants_hold_over_twenty_thousand_seeds():
    assert campaign(range(300, 20_300), processes=2) == []


def test_a_seed_is_one_run():
    stories = []
    for _ in range(2):
        trace: list[str] = []
        Cluster(11, trace=trace).run()
        stories.append(trace)
    assert stories[0] == stories[1]
    assert len(stories[0]) > 200


def test_the_seeds_meet_what_they_are_meant_to_meet():
    """A simulator in which nothing happens would pass: count what the seeds went through."""
    met: set[str] = set()
    gangs = 0
    for seed in range(20 * len(PROFILES)):
        cluster = Cluster(seed).run()
        for row in cluster.billing.rows.values():
            met |= {str(row.state), str(row.cause), f"segments {min(len(row.segments), 2)}"}
            gangs += bool(row.ask.gang and row.ever_granted)
        for lease in cluster.oracle.leases.values():
            met |= {str(lease.state), str(lease.cause), lease.exit.reason if lease.exit else ""}
        met |= {task.state for task in cluster.database.tasks.values()}
        met |= {reason.code for reason in cluster.database.stops.values()}
    assert gangs > 20
    assert met >= {
        "OPEN", "FINAL", "FENCED", "segments 0", "segments 1", "segments 2",
        "ACTIVE", "CLOSED", "EXITED", "STOPPED", "PREEMPTED", "NODE_LOST",
        "FUNDS_EXHAUSTED", "BUDGET_EXHAUSTED", "GRANT_ENDED", "HOLD_ENDED",
        "DEADLINE", "SIGTERM", "START_LOST", "NODE_REBOOT", "SPOOL_MISMATCH",
        "PLACED", "DONE", "CANCELLED", "FAILED", "GANG_ENDED",
    }  # fmt: skip


def test_every_trap_has_its_mutation():
    assert sorted(TRAPS) == list(range(1, 19))
