"""Whole cores: no core of two leases, no sibling shared, for any layout and any order."""

from __future__ import annotations

from dataclasses import replace

from gridlease_agent.domain import cores
from gridlease_scheduler.adapters import catalogue
from gridlease_scheduler.domain.job import Allocation, Needs, Tenancy
from gridlease_scheduler.domain.node import Node, with_held
from gridlease_scheduler.domain.placing.feasible import Obstacle, fits
from hypothesis import given
from hypothesis import strategies as st

CATALOGUE = catalogue.load()
_MOVES = st.lists(
    st.tuples(st.sampled_from("abcdefgh"), st.integers(10, 9_000), st.booleans(), st.booleans()),
    max_size=30,
)


@given(st.integers(1, 16), st.integers(1, 4), _MOVES)
def test_no_core_is_of_two_and_siblings_stay_together(
    count: int, threads: int, moves: list[tuple[str, int, bool, bool]]
) -> None:
    # Siblings are numbered as kernels do: thread t of core c is c + t * count.
    layout = [tuple(core + at * count for at in range(threads)) for core in range(count)]
    core_of = {thread: core for core in layout for thread in core}
    holders: cores.Holders = {}
    for lease_id, milli, alone, gone in moves:
        if gone:
            holders = cores.given(holders, lease_id)
        else:
            holders = cores.take(layout, holders, lease_id, milli, alone=alone) or holders
        owner: dict[int, str] = {}
        for name, held in holders.items():
            mine = cores.cpus(layout, holders, name)
            assert mine, "nobody is left without a thread"
            if not held.cores:
                continue
            assert len(mine) * 1_000 >= held.cpu_milli
            assert {core_of[thread] for thread in mine} == set(held.cores)
            for thread in mine:
                assert set(core_of[thread]) <= set(mine), "a sibling is somebody else's"
                assert owner.setdefault(thread, name) == name
        for name, held in holders.items():
            if not held.cores:
                assert not owner.keys() & set(cores.cpus(layout, holders, name))


@given(st.integers(1, 8), st.integers(10, 20_000))
def test_one_alone_gets_no_more_than_it_needs(count: int, milli: int) -> None:
    layout = [(core, core + count) for core in range(count)]
    held = cores.take(layout, {}, "a", milli, alone=True)
    assert (held is None) == (milli > 2_000 * count)
    if held is not None:
        assert 2_000 * (len(held["a"].cores) - 1) < milli


@given(st.sets(st.integers(0, 200)))
def test_sets_are_written_and_read_back(numbers: set[int]) -> None:
    assert cores.numbers(cores.listed(numbers)) == tuple(sorted(numbers))


def test_who_shares_is_never_left_without_a_core() -> None:
    layout = [(0,), (1,)]
    held = cores.take(layout, {}, "shared", 500, alone=False)
    assert held is not None
    held = cores.take(layout, held, "mine", 1_000, alone=True)
    assert held is not None
    assert cores.cpus(layout, held, "mine") == (1,)
    assert cores.cpus(layout, held, "shared") == (0,)
    assert cores.take(layout, held, "third", 100, alone=True) is None
    assert cores.cpus(layout, cores.given(held, "mine"), "shared") == (0, 1)


@given(
    st.integers(1, 12),
    st.integers(1, 4),
    st.lists(st.tuples(st.integers(10, 6_000), st.booleans(), st.integers(0, 3)), max_size=20),
)
def test_what_the_scheduler_counts_as_free_is_there(
    count: int, threads: int, asked: list[tuple[int, bool, int]]
) -> None:
    """Whole cores are a capacity: whom the scheduler lets in, the node has cores for."""
    layout = [tuple(core + at * count for at in range(threads)) for core in range(count)]
    node = Node(
        "n1", "s1", "cpu-x86-64", 1_000 * threads * count, 1 << 40, 1 << 40,
        threads_per_core=threads,
    )  # fmt: skip
    holders: cores.Holders = {}
    held: list[tuple[str, Allocation]] = []
    for number, (milli, alone, leaves) in enumerate(asked):
        if leaves == 0 and held:
            lease_id, allocation = held.pop(0)
            node = replace(node, used_cpu_milli=node.used_cpu_milli - allocation.cpu_milli)
            holders = cores.given(holders, lease_id)
        tenancy = Tenancy.EXCLUSIVE_DEVICE if alone else Tenancy.SHARED
        ways = fits(Needs(milli, 0, 0, tenancy=tenancy), node, CATALOGUE, emulated_ok=True)
        if isinstance(ways, Obstacle):
            continue
        allocation = ways[0].allocation
        after = cores.take(layout, holders, f"l{number}", allocation.cpu_milli, alone=alone)
        assert after is not None, "placed there, and refused at its start"
        holders, node = after, with_held(node, allocation)
        held.append((f"l{number}", allocation))
