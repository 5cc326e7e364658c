"""The book's rectangles say what all entries together say, at every pair of times."""

import itertools
from dataclasses import dataclass

from gridlease_billing.domain.book import in_force, spans
from gridlease_billing.domain.price import Price, price_at
from hypothesis import given
from hypothesis import strategies as st


@dataclass(frozen=True)
class Entry:
    version: int
    effective_ms: int
    recorded_ms: int


@st.composite
def books(draw):
    """Entries of one thing in the order in which they were written: of now, to come, or past."""
    now, found = 0, []
    for version in range(1, draw(st.integers(1, 12)) + 1):
        now += draw(st.integers(0, 3))
        found.append(Entry(version, draw(st.integers(-4, 24)), now))
    return found


def brute(entries, valid_ms, recorded_ms):
    """The model: the latest begun of what was known, the last written of equals."""
    best = None
    for it in entries:
        if it.recorded_ms <= recorded_ms and it.effective_ms <= valid_ms:
            key = (it.effective_ms, it.version)
            best = it if best is None or key > (best.effective_ms, best.version) else best
    return None if best is None else best.version


@given(books())
def test_one_rectangle_at_most_covers_a_pair_of_times_and_it_is_the_models(entries):
    found = spans(entries)
    for valid_ms, recorded_ms in itertools.product(range(-5, 27), range(-1, 38)):
        held = [it.version for it in found if it.holds(valid_ms, recorded_ms)]
        due = brute(entries, valid_ms, recorded_ms)
        assert held == ([] if due is None else [due]), (valid_ms, recorded_ms)
        now = in_force(entries, valid_ms, recorded_ms)
        assert (None if now is None else now.version) == due


@given(books())
def test_what_the_book_once_said_it_says_for_ever(entries):
    for known in range(1, len(entries)):
        as_of = entries[known - 1].recorded_ms
        if entries[known].recorded_ms == as_of:
            continue  # of one instant: the last word of it counts
        before, after = spans(entries[:known]), spans(entries)
        for valid_ms in range(-5, 27):
            first = [it.version for it in before if it.holds(valid_ms, as_of)]
            assert first == [it.version for it in after if it.holds(valid_ms, as_of)]


@st.composite
def priced(draw):
    found = []
    for version in range(1, draw(st.integers(1, 10)) + 1):
        site, gone = draw(st.sampled_from(["", "sites/a", "sites/b"])), draw(st.booleans())
        at = draw(st.integers(0, 9))
        found.append(Price(version, "c", "SPOT", version, at, 0, site=site, withdrawn=gone))
    return found


@given(priced(), st.sampled_from(["", "sites/a", "sites/c"]), st.integers(-1, 10))
def test_the_most_specific_price_that_is_not_withdrawn_wins(prices, site, now_ms):
    found = price_at(prices, ("c", "SPOT", site), now_ms)
    due = None
    for where in ("", site):  # the more specific has the last word
        own = in_force([it for it in prices if it.site == where], now_ms)
        due = own if own is not None and not own.withdrawn else due
    assert found == due
