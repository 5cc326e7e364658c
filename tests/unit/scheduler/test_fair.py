"""Class, priority, fair share, age; and one overdue job a tenant."""

import dataclasses

import pytest
from gridlease_scheduler.domain.job import Tier
from gridlease_scheduler.domain.order.fair import FairRules, decayed, order, overdue
from gridlease_scheduler.domain.snapshot import Share

from tests.unit.scheduler.standing import CATALOGUE, HOUR, runs, waits

replace = dataclasses.replace
A, B = "tenants/a", "tenants/b"


def queue(jobs, running=(), shares=(), now_ms=0, **options):
    return [x.job for x in order(jobs, running, shares, CATALOGUE, now_ms, **options)]


def test_class_comes_before_priority_and_priority_before_age():
    jobs = [
        waits("spot", 1, tier=Tier.SPOT, priority=100),
        waits("old", 2, priority=10),
        waits("high", 3, priority=90),
        waits("paid", 4, tier=Tier.RESERVED, priority=0),
    ]
    assert queue(jobs) == ["paid", "high", "old", "spot"]


def test_the_tenant_with_the_least_use_comes_first():
    jobs = [waits("a", 1, tenant=A), waits("b", 2, tenant=B)]
    assert queue(jobs) == ["a", "b"]
    assert queue(jobs, shares=[Share(A, used=10)]) == ["b", "a"]
    assert queue(jobs, shares=[Share(A, 3, used=20), Share(B, 1, used=10)]) == ["a", "b"]
    assert queue(jobs, running=[runs("x", tenant=A)]) == ["b", "a"]


def test_one_queue_served_from_its_head_fills_tenants_up_alike():
    jobs = [waits(f"a{i}", i, tenant=A) for i in range(3)]
    jobs += [waits(f"b{i}", 10 + i, tenant=B) for i in range(3)]
    assert queue(jobs) == ["a0", "b0", "a1", "b1", "a2", "b2"]
    weighed = [Share(A, 2), Share(B, 1)]
    assert queue(jobs, shares=weighed) == ["a0", "b0", "a1", "a2", "b1", "b2"]


def test_a_fast_chip_counts_for_more():
    jobs = [waits("a", 1, tenant=A), waits("b", 2, tenant=B)]
    running = [
        runs("x", devices=("gpu-0",), chip="H100-80GB", tenant=A),
        runs("y", devices=("gpu-1", "gpu-2"), chip="L4-24GB", tenant=B),
    ]
    assert queue(jobs, running=running) == ["b", "a"]


def test_jobs_for_another_chip_are_no_burden():
    jobs = [waits(f"h{i}", i, tenant=A, chips=("H100",)) for i in range(9)]
    jobs += [waits("l", 20, tenant=A, chips=("L4",)), waits("m", 21, tenant=B, chips=("L4",))]
    order_of = queue(jobs)
    assert order_of.index("l") < order_of.index("m")


RULES = FairRules(patience_ms=HOUR)


def test_who_waits_too_long_is_next_whatever_the_priority():
    jobs = [
        waits("low", 1, tenant=A, tier=Tier.SPOT, priority=0, submitted_ms=1),
        waits("high", 2, tenant=B, tier=Tier.RESERVED, priority=100, submitted_ms=HOUR),
    ]
    assert queue(jobs, now_ms=HOUR, rules=RULES) == ["high", "low"]
    assert queue(jobs, now_ms=HOUR + 1, rules=RULES) == ["low", "high"]


def test_one_overdue_job_a_tenant_so_a_backlog_outranks_nobody():
    backlog = [waits(f"a{i}", i, tenant=A, priority=0, submitted_ms=1) for i in range(5)]
    critical = waits("critical", 9, tenant=B, priority=100, submitted_ms=2 * HOUR)
    late = queue([*backlog, critical], now_ms=2 * HOUR, rules=RULES)
    assert late[:2] == ["a0", "critical"]
    served = [runs("a-", tenant=A, started_ms=2 * HOUR - 1)]
    assert queue([*backlog, critical], served, now_ms=2 * HOUR, rules=RULES)[0] == "critical"


def test_being_overtaken_is_no_service():
    old = waits("old", 1, tenant=A, priority=0, submitted_ms=1)
    younger = runs("young", tenant=A, number=2, started_ms=HOUR)
    older = runs("older", tenant=A, number=0, started_ms=HOUR)
    assert overdue([old], [younger], HOUR + 1, RULES) == [old]
    assert overdue([old], [older], HOUR + 1, RULES) == []


def test_waiting_begins_anew_after_an_eviction():
    back = waits("back", 1, submitted_ms=1, queued_ms=HOUR)
    assert overdue([back], [], HOUR + 1, RULES) == []
    assert overdue([back], [], 2 * HOUR, RULES) == [back]


def test_what_can_never_run_stands_in_nobodys_way():
    jobs = [waits("never", 1, submitted_ms=1), waits("can", 2, submitted_ms=2)]
    found = overdue(jobs, [], 2 * HOUR, RULES, lambda x: x.job != "never")
    assert [x.job for x in found] == ["can"]


@pytest.mark.parametrize("used", [0, 1, 1_000, 10**15])
def test_use_halves(used):
    assert decayed(used, 0, HOUR) == used
    assert decayed(used, HOUR, HOUR) == used // 2
    assert decayed(used, 100 * HOUR, HOUR) == 0
    assert decayed(10**15, HOUR // 2, HOUR) == pytest.approx(10**15 * 2**-0.5, rel=1e-4)
