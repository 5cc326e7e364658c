"""Each of the 18 naive designs is caught, by the invariant that the protocol's page names."""

from __future__ import annotations

import pytest

from tests.sim.campaign import caught, violation
from tests.sim.cluster import PROFILES
from tests.sim.traps import TRAPS

# trap -> the invariant that it breaks, and the faults that show it soonest (None = a mix)
BROKEN = {
    1: ("P1", 7), 2: ("P1", None), 3: ("P1", 7), 4: ("P1", None), 5: ("P1", 11),
    6: ("P1", None), 7: ("P1", None), 8: ("P2", None), 9: ("P6", None), 10: ("P4", None),
    11: ("P1", 10), 12: ("P1", 7), 13: ("P1", None), 14: ("P8", None), 15: ("P5", None),
    16: ("P5", None), 17: ("P7", None), 18: ("P1", 8),
}  # fmt: skip
MOST_SEEDS = 2_000  # the slowest needs a hundred or two


@pytest.mark.parametrize("trap", TRAPS, ids=lambda trap: f"T{trap}")
def test_trap_is_caught(trap):
    invariant, number = BROKEN[trap]
    profile = None if number is None else PROFILES[number]
    seed = caught(TRAPS[trap], invariant, range(MOST_SEEDS), profile)
    assert seed is not None, TRAPS[trap].__doc__
    assert violation(seed, profile=profile) is None, "the protocol itself fails there"
