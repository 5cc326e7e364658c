"""Each of the 18 naive designs is caught, by the invariant that the protocol's page names."""

from __future__ import annotations

import pytest

from tests.sim.campaign import caught
from tests.sim.traps import TRAPS

BROKEN = {
    1: "P1", 2: "P1", 3: "P1", 4: "P1", 5: "P1", 6: "P1", 7: "P1", 8: "P2", 9: "P6",
    10: "P4", 11: "P1", 12: "P1", 13: "P1", 14: "P8", 15: "P5", 16: "P5", 17: "P7", 18: "P1",
}  # fmt: skip
MOST_SEEDS = 3_000  # the slowest needs a few hundred; the same seeds hold without the trap


@pytest.mark.parametrize("trap", TRAPS, ids=lambda trap: f"T{trap}")
def test_trap_is_caught(trap):
    assert caught(TRAPS[trap], BROKEN[trap], range(MOST_SEEDS)) is not None, TRAPS[trap].__doc__
