"""How often a key may call: GCRA, one integer a key.

Source: the generic cell rate algorithm, ITU-T I.371, in its virtual scheduling form.
"""

from __future__ import annotations

from dataclasses import dataclass

SECOND_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Rate:
    """``per_s`` calls a second in the long run, ``burst`` at once."""

    per_s: int
    burst: int


@dataclass(frozen=True, slots=True)
class Admission:
    """``due_ns`` to keep for the key, and how long to wait (0 = admitted)."""

    due_ns: int
    wait_ns: int


def admit(rate: Rate, due_ns: int, now_ns: int) -> Admission:
    """Whether a call at ``now_ns`` is within the rate, given the key's kept ``due_ns``."""
    assert rate.per_s > 0, rate
    assert rate.burst > 0, rate
    interval_ns = SECOND_NS // rate.per_s
    due = max(due_ns, now_ns)
    early_ns = due + interval_ns - now_ns - rate.burst * interval_ns
    if early_ns > 0:
        return Admission(due_ns, early_ns)
    return Admission(due + interval_ns, 0)
