"""No calendar ever promises more than there is, and the next free window is the next."""

from dataclasses import replace

from gridlease_scheduler.domain.order.reserve import Booked, Full, book
from gridlease_scheduler.domain.snapshot import Reservation
from gridlease_scheduler.domain.stock import Stock
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.scheduler.standing import A100

HAVE = {"s1": 4, "s2": 2}
STOCK = [Stock(A100, site, False, 0, 1_000 * count) for site, count in HAVE.items()]
WANTED = st.lists(
    st.tuples(
        st.sampled_from(("", "s1", "s2")), st.integers(1, 7), st.integers(0, 12), st.integers(1, 6)
    ),
    max_size=12,
)


def kept(calendar):
    """Can every promise be kept at every instant? By seating them."""
    for at in range(40):
        now = [x for x in calendar if x.begins_ms <= at < x.ends_ms]
        left = {k: 1_000 * v for k, v in HAVE.items()}
        for each in now:
            if each.site:
                left[each.site] -= each.quantity_milli
        anywhere = sum(x.quantity_milli for x in now if not x.site)
        if min(left.values()) < 0 or anywhere > sum(left.values()):
            return False
    return True


@given(WANTED)
def test_what_is_booked_can_be_kept(wanted):
    calendar = []
    for at, (site, count, begins, length) in enumerate(wanted):
        one = Reservation(f"r{at}", "p", A100, site, 1_000 * count, begins, begins + length)
        match book(one, calendar, STOCK):
            case Booked():
                calendar.append(one)
                assert kept(calendar)
            case Full(fits_at_ms=0):
                assert count > HAVE.get(site, sum(HAVE.values()))
            case Full(fits_at_ms=later):
                assert not kept([*calendar, one])
                moved = [
                    replace(one, begins_ms=x, ends_ms=x + length) for x in range(begins, later)
                ]
                assert not any(kept([*calendar, x]) for x in moved)
                assert kept([*calendar, replace(one, begins_ms=later, ends_ms=later + length)])
