"""One call's reports: before anything is decided about them, and gang after gang."""

import pytest
from gridlease_billing.domain.grant_row import Ask, GrantRow, Phase, Report, State, Terms
from gridlease_billing.domain.means import Means
from gridlease_billing.domain.segment import Segment
from gridlease_billing.domain.settlement import MAX_UNPRICED, merged, not_yours, settle
from gridlease_billing.domain.usage import Stored


def _report(phase, ran_ns, final=False, segment=1):
    return Report("a", "s", phase, final, {(segment, "run"): ran_ns})


def test_reports_of_one_lease_are_one_at_its_furthest():
    first = _report(Phase.EXITED, 5, final=True)
    second = _report(Phase.STARTING, 9)
    for pair in ((first, second), (second, first)):
        assert merged(pair) == {"a": _report(Phase.EXITED, 9, final=True)}


def test_a_stranger_gets_no_grant_and_is_forgotten():
    answer = not_yours(_report(Phase.CLEAN, 5, final=True))
    assert (answer.valid_for_ms, answer.last, answer.final_acknowledged) == (0, True, True)
    assert answer.reason == "NOT_YOURS"


def test_segments_that_were_never_opened_are_not_counted():
    row = GrantRow(Ask("a", notice_ms=0), 0, 60_000, State.HELD, 10_000)
    held = {"a": Stored(row, 1, 0)}
    reports = {"a": _report(Phase.STARTING, 5, segment=7)}
    told = settle(held, reports, {}, Means({}, {}), 0, Terms())
    ((_, after, effect),) = told.steps
    assert after.state is State.OPEN
    assert after.counters == {}
    assert effect.suspense_ns == 0
    assert not told.parked


def test_no_priced_meter_is_dropped_however_many_segments_a_lease_has():
    segments = tuple(Segment(n, 1, n, n * 10, n * 10 + 20) for n in range(1, 201))
    before = {(n, "storage"): 7 for n in range(1, 200)}
    row = GrantRow(Ask("a", notice_ms=0), 1, 60_000, State.OPEN, 10**9, segments, "s", before)
    held = {"a": Stored(row, 1, 0)}
    unknown = {(200, f"m{n}"): 1 for n in range(300)}
    priced = {(200, meter): 3 for meter in ("run", "egress", "storage", "energy", "provision")}
    report = Report("a", "s", Phase.STARTING, False, unknown | priced)
    told = settle(held, {"a": report}, {}, Means({}, {}), 10_000, Terms())
    ((_, after, _),) = told.steps
    assert priced.items() <= after.counters.items()
    assert len(after.counters) == len(before) + len(priced) + MAX_UNPRICED


@pytest.mark.parametrize(
    ("credit_nano", "budget_nano", "renewed"), [(100, None, 1), (200, None, 2), (200, 120, 1)]
)
def test_what_one_gang_takes_the_next_has_not(credit_nano, budget_nano, renewed):
    """Two leases of a job; another 60 s of one cost 100, and 50 of its hold are left."""
    rate = 6_000
    ask = {"tenant": "t", "job": "j", "budget_nano": budget_nano}
    first = Segment(1, rate, 0, 0, 60_000)
    stored = {
        name: Stored(
            GrantRow(
                Ask(name, **ask), rate, 60_000, State.OPEN, 60_000, (first,), "s", {}, held_nano=100
            ),
            0,
            0,
        )
        for name in ("a", "b")
    }
    reports = {name: Report(name, "s", Phase.STARTING) for name in stored}
    means = Means({"t": credit_nano}, {"j": 0})
    told = settle(stored, reports, {}, means, 60_000 - 1, Terms())
    assert sum(effect.hold_nano > 0 for _, _, effect in told.steps) == renewed
    assert sum(not it.last for it in told.answers.values()) == renewed
