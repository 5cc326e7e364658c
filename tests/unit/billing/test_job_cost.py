"""How long a job's money lasts."""

from dataclasses import replace

from gridlease_billing.domain.job_cost import JobCost, LeaseCost, Limit
from gridlease_billing.rpc.cost_shapes import job_cost

LEASE = LeaseCost("l1", "n1", "H100-80GB", 1_000, "OPEN", 1, 60, 30, 4, 91_000)
COST = JobCost(
    job="projects/p/jobs/j",
    now_ms=1_000,
    charged_nano=30,
    other_nano=0,
    credited_nano=0,
    held_nano=4,
    rate_nano_per_hour=60,
    budget_nano=None,
    available_nano=116,
    spendable_nano=120,
    tenant_rate_nano_per_hour=60,
    ended=0,
    leases=(LEASE,),
)


def test_the_balance_bounds_all_that_the_tenant_runs():
    assert COST.lasts == (7_200_000, Limit.BALANCE)
    assert replace(COST, tenant_rate_nano_per_hour=240).lasts == (1_800_000, Limit.BALANCE)


def test_the_budget_bounds_the_job_alone():
    cost = replace(COST, budget_nano=45)
    assert cost.lasts == (900_000, Limit.BUDGET)
    assert replace(cost, charged_nano=45).lasts == (0, Limit.BUDGET)
    assert replace(cost, budget_nano=10**9).lasts == COST.lasts


def test_what_does_not_run_or_is_free_lasts_for_no_time_that_is_known():
    assert replace(COST, rate_nano_per_hour=0).lasts is None
    assert replace(COST, leases=()).grant_left_ms is None
    assert COST.grant_left_ms == 90_000
    held = replace(LEASE, state="HELD", ends_at_ms=2_000)
    assert replace(COST, leases=(LEASE, held)).grant_left_ms == 90_000


def test_on_the_wire_what_is_not_known_is_unset():
    told = job_cost(COST)
    assert (told.lasts_ms, told.lasts_by, told.grant_left_ms) == (7_200_000, "BALANCE", 90_000)
    assert not told.HasField("budget_nano")
    assert not job_cost(replace(COST, rate_nano_per_hour=0)).HasField("lasts_ms")
    assert told.leases[0].grant_end_time.ToMilliseconds() == 91_000
