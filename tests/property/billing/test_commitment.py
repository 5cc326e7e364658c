"""Commitments: no pot gives more than it holds, no use draws more than it is, in any order."""

import random

from gridlease_billing.domain.commitment import HOUR_MS, HOUR_NS, Commitment, Use, match
from hypothesis import given
from hypothesis import strategies as st

HOURS = 6


@st.composite
def pots(draw, number):
    start = draw(st.integers(0, HOURS - 1))
    end = draw(st.integers(start + 1, HOURS))
    site = draw(st.sampled_from(["", "sites/a", "sites/b"]))
    chip = draw(st.sampled_from(["A100", "H100"]))
    size = draw(st.integers(1, 4_000))
    return Commitment(f"c{number}", "t", chip, size, start * HOUR_MS, end * HOUR_MS, 10**9, site)


@st.composite
def uses(draw, number):
    return Use(
        f"l{number}",
        1,
        draw(st.sampled_from(["t", "u"])),
        draw(st.sampled_from(["A100", "H100"])),
        draw(st.sampled_from(["sites/a", "sites/b"])),
        draw(st.integers(1, 4_000)),
        draw(st.integers(0, HOURS * HOUR_MS)),
        draw(st.integers(0, 3 * HOUR_NS)),
    )


@st.composite
def worlds(draw):
    some = [draw(pots(number)) for number in range(draw(st.integers(0, 4)))]
    return some, [draw(uses(number)) for number in range(draw(st.integers(0, 6)))]


@given(worlds(), st.randoms(use_true_random=False))
def test_it_is_bounded_and_knows_no_order(world, chance: random.Random):
    some, used = world
    found = match(some, used, 0, HOURS * HOUR_MS)
    covered = found.covered()
    for use in used:
        whole = use.span_ns * use.quantity_milli
        assert covered.get((use.lease, use.segment), 0) <= whole
    for pot in found.pots:
        drawn = [
            it for it in found.drawn if (it.commitment, it.hour_ms) == (pot.commitment, pot.hour_ms)
        ]
        assert sum(it.milli_ns for it in drawn) == pot.used_milli_ns <= pot.size_milli_ns
    owners = {it.id: it for it in some}
    users = {it.lease: it for it in used}
    for each in found.drawn:
        pot, use = owners[each.commitment], users[each.lease]
        assert (pot.tenant, pot.chip) == (use.tenant, use.chip)
        assert pot.site in ("", use.site)
    chance.shuffle(some)
    chance.shuffle(used)
    assert match(some, used, 0, HOURS * HOUR_MS) == found


@given(worlds(), st.integers(1, HOURS - 1))
def test_hour_by_hour_is_the_same_as_all_at_once(world, cut):
    some, used = world
    whole = match(some, used, 0, HOURS * HOUR_MS)
    first = match(some, used, 0, cut * HOUR_MS)
    rest = match(some, used, cut * HOUR_MS, HOURS * HOUR_MS)
    assert first.drawn + rest.drawn == whole.drawn
    assert first.pots + rest.pots == whole.pots


def test_a_full_pot_and_an_idle_one():
    pot = Commitment("c", "t", "H100", 2_000, 0, 2 * HOUR_MS, 10**9)
    use = Use("l", 1, "t", "H100", "sites/a", 3_000, 0, HOUR_NS)
    found = match([pot], [use], 0, 2 * HOUR_MS)
    assert [it.unused_milli_ns for it in found.pots] == [0, 2_000 * HOUR_NS]
    assert found.covered() == {("l", 1): 2_000 * HOUR_NS}


def test_two_uses_share_one_pot_and_one_use_has_its_rest_from_the_next():
    pots = [Commitment(name, "t", "H100", 1_000, 0, HOUR_MS, 10**9) for name in ("c1", "c2")]
    uses = [Use(name, 1, "t", "H100", "", 800, 0, HOUR_NS) for name in ("l1", "l2", "l3")]
    found = match(pots, uses, 0, HOUR_MS)
    assert [(it.commitment, it.lease, it.milli_ns // HOUR_NS) for it in found.drawn] == [
        ("c1", "l1", 800),
        ("c1", "l2", 200),
        ("c2", "l2", 600),
        ("c2", "l3", 400),
    ]
    assert [it.unused_milli_ns for it in found.pots] == [0, 0]
