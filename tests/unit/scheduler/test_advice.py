"""The slow path's word on chips: it orders the ways of a job and takes none away."""

from dataclasses import replace

from gridlease_scheduler.domain.chips import AcceleratorNeed
from gridlease_scheduler.domain.job import Purpose
from gridlease_scheduler.domain.placing.index import Index
from gridlease_scheduler.domain.plan import Placed, Planner
from gridlease_scheduler.domain.slow.advice import (
    Advice,
    JobClass,
    Lookup,
    class_of,
    lookup,
    problem,
)
from gridlease_scheduler.domain.slow.preferred import preferred
from gridlease_scheduler.domain.slow.rounds import Memory
from gridlease_scheduler.domain.snapshot import Snapshot
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.scheduler.standing import CATALOGUE, HOUR, node, waits

NOW = 1_000 * HOUR
CHIPS = ("H100-80GB", "A100-80GB", "L4-24GB")
EITHER = {"purpose": Purpose.TRAINING}


def fleet(*counts):
    return [node(f"n{x}", n, chip=chip) for x, (chip, n) in enumerate(zip(CHIPS, counts))]  # noqa: B905


def planner(*counts):
    return Planner(Index(fleet(*counts), CATALOGUE))


def first(lookup, task, *counts):
    plan = planner(*counts)
    plan.set_advice(lookup)
    decision = plan.decide(task)
    return decision.allocation.chip if isinstance(decision, Placed) else None


def either(*chips, **changes):
    return waits("j", chips=chips or CHIPS[:2], need=EITHER, **changes)


def test_a_scarce_chip_is_left_where_the_class_has_its_share_elsewhere():
    task = either()
    key = class_of("", task.needs)
    alone = first(Lookup({}, {}), task, 4, 4, 0)
    other = next(x for x in CHIPS[:2] if x != alone)
    assert first(Lookup({key: frozenset({other})}, {alone: 50}), task, 4, 4, 0) == other
    assert first(Lookup({key: frozenset({other})}, {other: 50}), task, 4, 4, 0) == alone
    assert first(Lookup({"|else": frozenset({other})}, {alone: 50}), task, 4, 4, 0) == alone


def test_advice_speaks_of_needs_and_only_where_something_is_scarce():
    task = either()
    key = class_of("tenants/t", task.needs)
    advice = Advice({key: ("A100-80GB",)}, {"H100-80GB": 0.5, "L4-24GB": 0.0})
    assert lookup(advice) == Lookup(
        {class_of("", task.needs): frozenset({"A100-80GB"})}, {"H100-80GB": 500}
    )
    assert lookup(replace(advice, prices={"H100-80GB": 0.0})) == Lookup({}, {})


def test_the_preferred_chip_is_tried_first_and_the_others_still():
    task = either()
    for chip in CHIPS[:2]:
        assert first(Lookup({}, {}, {"j": chip}), task, 4, 4, 0) == chip
    assert first(Lookup({}, {}, {"j": "H100-80GB"}), task, 0, 4, 0) == "A100-80GB"
    assert first(Lookup({}, {}, {"j": "L4-24GB"}), task, 4, 4, 4) in CHIPS[:2]


def test_changed_advice_is_looked_up_anew_and_the_same_is_not():
    plan = planner(4, 4, 4)
    before = plan.index.version
    plan.set_advice(Lookup({}, {}, {"j": "H100-80GB"}))
    assert plan.index.version == before
    plan.set_advice(Lookup({}, {"H100-80GB": 1}))
    assert plan.index.version == before + 1


_LOOKUPS = st.builds(
    Lookup,
    st.dictionaries(
        st.sampled_from([class_of("", either().needs), class_of("", either(*CHIPS).needs)]),
        st.frozensets(st.sampled_from(CHIPS)),
    ),
    st.dictionaries(st.sampled_from(CHIPS), st.integers(1, 100)),
    st.dictionaries(st.just("j"), st.sampled_from(CHIPS)),
)


@given(
    _LOOKUPS,
    st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)),
    st.lists(st.sampled_from(CHIPS), min_size=1, max_size=3, unique=True),
    st.integers(1, 3),
    st.sampled_from(list(Purpose)),
)
def test_advice_never_makes_a_job_wait_that_could_start(words, counts, chips, count, purpose):
    task = waits("j", chips=tuple(chips), count=count, need={"purpose": purpose})
    without = planner(*counts).decide(task)
    plan = planner(*counts)
    plan.set_advice(words)
    assert isinstance(plan.decide(task), Placed) == isinstance(without, Placed)
    plan = planner(*counts)
    plan.set_advice(words)
    assert {x for x, _ in plan.chips(task.needs)} == {
        x for x, _ in planner(*counts).chips(task.needs)
    }


def test_the_search_prefers_a_chip_for_each_that_may_choose():
    plan = planner(1, 2, 0)
    ordered = replace(either(), job="o")
    ordered = replace(ordered, needs=replace(ordered.needs, alternatives_ordered=True))
    batch = waits("b", chips=CHIPS[:2])
    one = waits("only", chips=CHIPS[:1], need=EITHER)
    queue = [either(submitted_ms=NOW - HOUR), ordered, batch, one]
    found, memory = preferred(queue, [], fleet(1, 2, 0), plan, NOW, Memory())
    assert set(found) == {"j"}
    assert found["j"] in CHIPS[:2]
    assert memory.order == ("j",)
    assert preferred([one], [], fleet(1, 2, 0), plan, NOW, memory) == ({}, Memory())


def test_the_programme_counts_what_waits_by_class():
    wish = AcceleratorNeed(CHIPS[:2], count=2)
    task = waits("j", chips=CHIPS[:2], need=EITHER | {"accelerator": wish}, tasks=3)
    asked = problem(Snapshot(tuple(fleet(1, 2, 0)), (task,), CATALOGUE))
    [one] = asked.classes
    assert isinstance(one, JobClass)
    assert one.devices == 6
    assert asked.capacity == (("A100-80GB", 2), ("H100-80GB", 1))
