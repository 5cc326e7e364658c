"""Segments that billing has are told no more: nothing is lost, and a report has a bound."""

from __future__ import annotations

import random

from gridlease_agent.domain import lease, meters
from gridlease_agent.domain.spool import SETTLED, Phase, Row, Spool
from hypothesis import given
from hypothesis import strategies as st

MOST = 256  # counters of a report: protos/gridlease/billing/v1/lease.proto


def _grown(row: Row, step: int, chance: random.Random) -> Row:
    """Some time later: all meters of the current segment have counted."""
    number = row.segments[-1][0]
    counters = dict(row.counters)
    for meter in ("run", "egress", "energy"):
        counters[number, meter] = counters.get((number, meter), 0) + chance.randrange(step)
    return Row(**{**_fields(row), "counters": counters})


def _fields(row: Row) -> dict[str, object]:
    return {name: getattr(row, name) for name in Row.__dataclass_fields__}


@given(st.integers(0, 2**32), st.floats(0, 0.7))
def test_all_that_ran_is_told_and_a_report_has_a_bound(seed: int, lost: float) -> None:
    chance = random.Random(seed)
    row = Row("a", (), "boot", 0, 0, Phase.STARTING, ready_ns=1, segments=((1, 0),))
    spool = Spool("s", rows={"a": row})
    billed: dict[tuple[int, str], int] = {}
    truth: dict[str, int] = {}
    for number in range(2, 130):
        spool = spool.with_rows(_grown(spool.rows["a"], 1_000, chance))
        (report,) = lease.settle_report(spool)
        assert SETTLED not in {key[0] for key in report.counters}
        assert len(report.counters) <= MOST
        if chance.random() >= lost:  # it reached billing, and its answer with a new segment came
            for key, count in report.counters.items():
                billed[key] = max(billed.get(key, 0), count)
            after = spool.rows["a"]
            segments = (*after.segments, (number, number))
            if chance.random() < 0.3:  # what ran until the answer came
                spool = spool.with_rows(_grown(after, 1_000, chance))
                after = spool.rows["a"]
            spool = spool.with_rows(Row(**{**_fields(after), "segments": segments}))
            spool = meters.acknowledged(spool, {"a": report.counters})
    (report,) = lease.settle_report(spool)
    for key, count in report.counters.items():
        billed[key] = max(billed.get(key, 0), count)
    for (_, meter), count in spool.rows["a"].counters.items():
        truth[meter] = truth.get(meter, 0) + count
    for meter, count in truth.items():
        assert sum(n for (_, name), n in billed.items() if name == meter) == count


def test_what_billing_has_not_is_told_on() -> None:
    segments = tuple((n, n) for n in range(1, 41))
    counters = {(n, "run"): 10 for n in range(1, 41)}
    row = Row("a", (), "boot", 0, 0, Phase.STARTING, segments=segments, counters=counters)
    told = {key: 9 if key[0] == 4 else count for key, count in counters.items()}
    kept = meters.acknowledged(Spool("s", rows={"a": row}), {"a": told}).rows["a"]
    assert kept.segments == segments[3:]
    assert kept.counters[SETTLED, "run"] == 30
    assert sum(kept.counters.values()) == 400
