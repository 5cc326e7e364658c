"""Availability: from the intervals of leases alone, in any order, and never more than they cost."""

from gridlease_billing.domain.sla import LOST, TABLE, Stay, month_of, permille_of
from hypothesis import given
from hypothesis import strategies as st

STAYS = st.builds(
    Stay,
    lease=st.text("abc", min_size=1, max_size=6),
    quantity_milli=st.integers(1, 8_000),
    granted_ms=st.integers(0, 10**9),
    run_ms=st.integers(0, 10**9),
    provision_ms=st.integers(0, 10**6),
    cause=st.sampled_from(["NODE_LOST", "GRANT_ENDED", "STOPPED", "PREEMPTED", "EXITED", ""]),
    cost_nano=st.integers(0, 10**15),
)


@given(st.lists(STAYS, max_size=8, unique_by=lambda it: it.lease), st.randoms())
def test_a_month_is_of_its_intervals_in_any_order(stays, random):
    month = month_of(stays)
    shuffled = list(stays)
    random.shuffle(shuffled)
    assert month_of(shuffled) == month
    assert month.up_milli_ms == sum(it.run_ms * it.quantity_milli for it in stays)
    owed = {stay.lease: nano for stay, nano in month.credits}
    for it in stays:
        interrupted = it.is_lost and it.granted_ms > it.run_ms + it.provision_ms
        due = it.cost_nano * month.permille // 1_000 if interrupted else 0
        assert owed.get(it.lease, 0) == due <= it.cost_nano
    if not any(it.cause in LOST for it in stays):
        assert (month.permille, month.down_milli_ms, month.credits) == (0, 0, ())


@given(st.integers(0, 10**15), st.integers(0, 10**15), st.integers(0, 10**12))
def test_more_down_time_never_owes_less(up, down, more):
    assert permille_of(up, down) <= permille_of(up, down + more)
    share = 1_000 * up
    expected = max((credit for least, credit in TABLE if share < least * (up + down)), default=0)
    assert permille_of(up, down) == expected
