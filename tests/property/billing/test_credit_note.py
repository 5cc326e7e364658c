"""Credit notes: never more than the line, exact to the atom, in any number of steps."""

import pytest
from gridlease_billing.domain.credit_note import Part, credit, share
from gridlease_kernel.faults import Precondition
from hypothesis import given
from hypothesis import strategies as st

AMOUNTS = st.lists(st.integers(0, 10**15), min_size=1, max_size=6)


@given(AMOUNTS, st.data())
def test_any_notes_take_exactly_what_they_say_and_the_last_takes_the_rest(amounts, data):
    parts = [Part(f"a{at}", amount) for at, amount in enumerate(amounts)]
    total = sum(amounts)
    while left := total - sum(part.credited_nano for part in parts):
        rest = data.draw(st.booleans())
        taken = left if rest else data.draw(st.integers(-(-left // 3), left))
        after = credit(parts, taken)
        steps = [b.credited_nano - a.credited_nano for a, b in zip(parts, after, strict=True)]
        assert min(steps) >= 0
        assert sum(steps) == taken
        parts = after
    assert all(part.left_nano == 0 for part in parts)


@given(AMOUNTS, st.integers(1, 10**6))
def test_more_than_the_line_is_refused(amounts, more):
    parts = [Part("a", amount) for amount in amounts]
    with pytest.raises(Precondition) as told:
        credit(parts, sum(amounts) + more)
    assert told.value.reason == "CREDIT_EXCEEDS_LINE"


@given(AMOUNTS, st.data())
def test_a_share_is_within_an_atom_of_its_exact_part(amounts, data):
    total = sum(amounts)
    amount = data.draw(st.integers(0, total))
    for part, taken in zip(amounts, share(amounts, amount), strict=True):
        assert abs(taken * total - amount * part) < max(total, 1)
