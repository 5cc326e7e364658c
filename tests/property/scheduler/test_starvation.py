"""Every job that can run is first at some time, whatever others send, and how much of it."""

from gridlease_scheduler.domain.job import Tier
from gridlease_scheduler.domain.order.fair import FairRules
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.property.scheduler.test_fair import Pool
from tests.unit.scheduler.standing import HOUR, MINUTE, waits

PATIENCE = 30 * MINUTE
RULES = FairRules(half_life_ms=HOUR, horizon_ms=10 * MINUTE, patience_ms=PATIENCE)
LONGEST = 6
VICTIM = "tenants/victim"

# What the adversary sends, over and over: whose, how urgent, how wide, how long. Tenant "new" is
# another one each time, so that none of its jobs has any use on its account.
ARRIVALS = st.lists(
    st.tuples(
        st.sampled_from((VICTIM, "tenants/rich", "tenants/old", "new")),
        st.sampled_from((Tier.RESERVED, Tier.ON_DEMAND, Tier.SPOT)),
        st.sampled_from((0, 50, 100)),
        st.integers(1, 2),
        st.integers(1, LONGEST),
    ),
    min_size=1,
    max_size=6,
)


def _send(pool, number, arrival):
    tenant, tier, priority, count, minutes = arrival
    tenant = f"tenants/new-{number}" if tenant == "new" else tenant
    pool.queue.append(
        waits(f"j{number}", number, tenant=tenant, tier=tier, priority=priority, count=count,
              longest_ms=minutes * MINUTE, submitted_ms=pool.now)
    )  # fmt: skip


@settings(max_examples=60)
@given(ARRIVALS, st.lists(ARRIVALS.map(lambda x: x[0]), max_size=3), st.integers(1, 2))
def test_the_lowest_job_of_all_starts_at_last(arrivals, before, a_minute):
    pool = Pool(2, RULES, {VICTIM: 1, "tenants/rich": 9, "tenants/old": 1})
    for number, arrival in enumerate(before, 1):
        _send(pool, number, arrival)
    number = len(before) + 1
    pool.queue.append(
        waits("low", number, tenant=VICTIM, tier=Tier.SPOT, priority=0, count=2,
              longest_ms=MINUTE, submitted_ms=pool.now)
    )  # fmt: skip
    # Each older job may be overdue before it, once a patience and its own run.
    bound = (len(before) + 2) * (PATIENCE // MINUTE + 2 * LONGEST + 2)
    for minute in range(bound):
        for at in range(a_minute):
            number += 1
            _send(pool, number, arrivals[(minute * a_minute + at) % len(arrivals)])
        if "low" in pool.step():
            return
        pool.queue = pool.queue[:200]  # the newest of a flood add nothing
    raise AssertionError("it never started")


@settings(max_examples=30)
@given(ARRIVALS)
def test_critical_work_goes_on_beside_what_is_overdue(arrivals):
    """The other side of it: a backlog of overdue work takes one place a tenant and patience."""
    pool = Pool(2, RULES, {})
    for number in range(1, 101):
        _send(pool, number, (VICTIM, Tier.SPOT, 0, 1, LONGEST))
    number, lag = 100, []
    for minute in range(240):
        if minute % 5 == 0:
            number += 1
            _send(pool, number, ("tenants/rich", Tier.ON_DEMAND, 100, 1, 2))
            lag.append(minute)
        for job in pool.step():
            if int(job[1:]) > 100:
                assert minute - lag.pop(0) <= LONGEST + 1
