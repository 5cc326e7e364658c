"""Allocation never exceeds capacity, whatever is asked, held and given back (I7)."""

from dataclasses import replace

from gridlease_scheduler.domain.node import with_held
from gridlease_scheduler.domain.plan import Placed, Snapshot, plan, still_valid
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.scheduler.fleet import CATALOGUE, GIB, needs, node, task

CHIPS = ("A100-80GB", "A100-40GB", "L4-24GB")
NODES = st.builds(
    lambda cpu, chips, memory, connected: {
        "cpu_milli": cpu, "chips": chips, "memory_bytes": memory * GIB, "connected": connected,
    },
    st.integers(0, 8_000),
    st.lists(st.sampled_from(CHIPS), max_size=4),
    st.integers(0, 16),
    st.booleans(),
)  # fmt: skip
TASKS = st.builds(
    lambda cpu, memory, chip, count, priority: (
        needs(*chip, count=count, cpu_milli=cpu, memory_bytes=memory * GIB),
        priority,
    ),
    st.integers(10, 4_000),
    st.integers(1, 8),
    st.sampled_from(((), ("A100",), ("L4",), ("A100-80GB", "L4"))),
    st.integers(1, 3),
    st.integers(0, 3),
)


def _fleet(shapes):
    return tuple(
        node(f"n{index}", *shape["chips"], **{k: v for k, v in shape.items() if k != "chips"})
        for index, shape in enumerate(shapes)
    )


def _tasks(asked):
    return tuple(
        task(f"j{number}", number, priority=priority, need=need)
        for number, (need, priority) in enumerate(asked)
    )


def _check(nodes, placements):
    """Every lease of every node together fits; no device is held twice."""
    after = {each.node_id: each for each in nodes}
    for placed in placements:
        held = after[placed.node_id]
        assert held.held.isdisjoint(placed.allocation.device_ids)
        after[placed.node_id] = with_held(held, placed.allocation)
    for each in after.values():
        assert each.used_cpu_milli <= each.cpu_milli
        assert each.used_memory_bytes <= each.memory_bytes
        assert each.used_disk_bytes <= each.disk_bytes
        assert each.held <= {device.device_id for device in each.devices}
    return after


@settings(max_examples=200, deadline=None)
@given(st.lists(NODES, max_size=4), st.lists(TASKS, max_size=12), st.data())
def test_a_plan_and_its_second_check_never_exceed_capacity(shapes, asked, data):
    nodes, tasks = _fleet(shapes), _tasks(asked)
    snapshot = Snapshot(nodes, tasks, CATALOGUE)
    decisions = plan(snapshot)
    assert decisions == plan(snapshot)
    assert sorted(x.task.number for x in decisions) == list(range(len(tasks)))
    placements = [x for x in decisions if isinstance(x, Placed)]
    for placed in placements:
        where = next(each for each in nodes if each.node_id == placed.node_id)
        assert where.connected
        chips = {x.chip for x in where.devices if x.device_id in placed.allocation.device_ids}
        assert chips <= {placed.allocation.chip}
    after = _check(nodes, placements)
    # Another leader's plan of the same moment, written after this one, still exceeds nothing.
    waiting = {each.job: each.attempt for each in tasks}
    order = data.draw(st.permutations(placements))
    second = still_valid(order, after, waiting)
    _check(tuple(after.values()), second)
    smaller = {
        key: replace(each, cpu_milli=each.cpu_milli // 2, devices=each.devices[:1])
        for key, each in ((x.node_id, x) for x in nodes)
    }
    _check(tuple(smaller.values()), still_valid(placements, smaller, waiting))


@settings(max_examples=100, deadline=None)
@given(st.lists(NODES, max_size=4), st.lists(TASKS, min_size=1, max_size=8), st.data())
def test_a_higher_priority_never_delays(shapes, asked, data):
    nodes, tasks = _fleet(shapes), _tasks(asked)
    chosen = data.draw(st.sampled_from(tasks))
    raised = tuple(replace(x, priority=9) if x is chosen else x for x in tasks)

    def is_placed(some):
        decisions = plan(Snapshot(nodes, some, CATALOGUE))
        return any(isinstance(x, Placed) and x.task.job == chosen.job for x in decisions)

    assert is_placed(raised) or not is_placed(tasks)


@settings(max_examples=100, deadline=None)
@given(st.lists(NODES, max_size=4), st.lists(TASKS, max_size=8))
def test_who_waits_is_told_why_and_really_fits_nowhere(shapes, asked):
    nodes = _fleet(shapes)
    for decision in plan(Snapshot(nodes, _tasks(asked), CATALOGUE)):
        assert decision.reason.code.isupper()
        if not isinstance(decision, Placed):
            assert sum(decision.ruled_out.values()) == len(nodes)
            assert decision.reason.hint
