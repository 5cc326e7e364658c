"""If all members of a gang can be placed at once in any way, they are; else none is."""

from dataclasses import replace

from gridlease_scheduler.domain.job import Span
from gridlease_scheduler.domain.node import with_held
from gridlease_scheduler.domain.placing.feasible import Obstacle, fits
from gridlease_scheduler.domain.plan import Placed, Snapshot, decide, plan
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.scheduler.fleet import CATALOGUE, GIB, needs, node, task

NODES = st.lists(
    st.builds(
        lambda devices, cpu, held, rack, rail, site: {
            "chips": ("A100-80GB",) * devices,
            "cpu_milli": cpu * 1_000,
            "held": frozenset(f"gpu-{at}" for at in range(min(held, devices))),
            "rack": rack,
            "rail": rail,
            "site": site,
        },
        st.integers(0, 4),
        st.integers(0, 8),
        st.integers(0, 2),
        st.sampled_from(("", "a", "b")),
        st.sampled_from(("", "x", "y")),
        st.sampled_from(("east", "west")),
    ),
    min_size=1,
    max_size=4,
)


def _group(each, span):
    """What members must have in common; a rack that is not known is the node alone."""
    match span:
        case Span.ANY:
            return None
        case Span.HOST:
            return each.node_id
        case Span.RACK:
            return (each.site, each.rack) if each.rack else each.node_id
        case Span.RAIL:
            return (each.site, each.rail) if each.rail else each.node_id
        case Span.SITE:
            return each.site


def _possible(nodes, need, tasks):
    """Tries every way, one member after another."""
    if not tasks:
        return True
    for at, each in enumerate(nodes):
        found = fits(need, each, CATALOGUE, emulated_ok=True)
        if isinstance(found, Obstacle):
            continue
        after = with_held(each, found[0].allocation)
        if _possible([*nodes[:at], after, *nodes[at + 1 :]], need, tasks - 1):
            return True
    return False


@settings(max_examples=300, deadline=None)
@given(
    NODES,
    st.integers(1, 3),
    st.integers(100, 3_000),
    st.integers(1, 4),
    st.sampled_from(list(Span)),
)
def test_a_gang_is_placed_if_and_only_if_it_can_be(shapes, count, cpu, tasks, span):
    nodes = [
        node(f"n{at}", *shape["chips"], **{k: v for k, v in shape.items() if k != "chips"})
        for at, shape in enumerate(shapes)
    ]
    need = needs("A100", count=count, cpu_milli=cpu, memory_bytes=GIB, span=span)
    groups = {_group(each, span) for each in nodes}
    possible = any(
        _possible([x for x in nodes if _group(x, span) == group], need, tasks) for group in groups
    )
    decision = decide(replace(task(need=need), tasks=tasks), nodes, CATALOGUE)
    assert isinstance(decision, Placed) is possible, decision
    if not isinstance(decision, Placed):
        assert decision.reason.code
        assert decision.reason.hint
        return
    assert [member.index for member in decision.members] == list(range(tasks))
    after = {each.node_id: each for each in nodes}
    for member in decision.members:
        held = after[member.node_id]
        assert held.held.isdisjoint(member.allocation.device_ids)
        after[member.node_id] = with_held(held, member.allocation)
    for each in after.values():
        assert each.used_cpu_milli <= each.cpu_milli
        assert each.used_memory_bytes <= each.memory_bytes
    assert len({_group(after[member.node_id], span) for member in decision.members}) == 1


@settings(max_examples=100, deadline=None)
@given(NODES, st.lists(st.tuples(st.integers(1, 2), st.integers(1, 3)), max_size=5))
def test_a_refused_gang_leaves_the_nodes_to_others(shapes, asked):
    """All or none: what the refused ones touched, those after them still get."""
    nodes = tuple(
        node(f"n{at}", *shape["chips"], **{k: v for k, v in shape.items() if k != "chips"})
        for at, shape in enumerate(shapes)
    )
    tasks = tuple(
        replace(task(f"j{at}", at, need=needs("A100", count=count)), tasks=many)
        for at, (count, many) in enumerate(asked)
    )
    everyone = plan(Snapshot(nodes, tasks, CATALOGUE))
    placed = {x.task.job for x in everyone if isinstance(x, Placed)}
    without = tuple(x for x in tasks if x.job in placed)
    alone = plan(Snapshot(nodes, without, CATALOGUE))
    assert [x.members for x in alone if isinstance(x, Placed)] == [
        x.members for x in everyone if isinstance(x, Placed)
    ]
