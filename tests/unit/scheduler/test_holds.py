"""What is held back for a reservation as its window nears, and given back after the pass."""

from dataclasses import replace

import pytest
from gridlease_scheduler.domain.order.holds import for_reservations
from gridlease_scheduler.domain.order.reserve import HOLD_MS
from gridlease_scheduler.domain.placing.index import Index
from gridlease_scheduler.domain.plan import Placed, Planner
from gridlease_scheduler.domain.ruling import RulingRules, rule
from gridlease_scheduler.domain.snapshot import Reservation, Snapshot

from tests.unit.scheduler.standing import A100, CATALOGUE, HOUR, MINUTE, node, runs, waits

NOW = 1_000 * HOUR
WINDOW = Reservation("r", "projects/p", A100, "s1", 4_000, NOW + 30 * MINUTE, NOW + 2 * HOUR)


def wants(running=(), now=NOW, calendar=(WINDOW,), nodes=None):
    nodes = nodes or [node("n1", running=running)]
    return [
        (want.node_id, want.devices)
        for hold in for_reservations(calendar, nodes, running, now)
        for want in hold.wants
    ]


def test_held_back_only_as_the_window_nears():
    assert wants() == [("n1", 4)]
    assert wants(now=WINDOW.begins_ms - HOLD_MS - 1) == []
    assert wants(now=WINDOW.ends_ms - 1) == [("n1", 4)]
    assert wants(now=WINDOW.ends_ms) == []


def test_what_ends_before_the_window_may_be_counted_on():
    ending = runs("a", devices=("gpu-0", "gpu-1"), worked_ms=0, longest_ms=10 * MINUTE)
    assert wants([ending]) == [("n1", 2)]
    assert wants([replace(ending, longest_ms=0)]) == [("n1", 4)]
    assert wants([replace(ending, longest_ms=HOUR)]) == [("n1", 4)]


def test_what_its_own_jobs_hold_is_not_held_twice():
    own = runs("a", devices=("gpu-0", "gpu-1", "gpu-2"), reservation="r")
    assert wants([own], now=NOW + HOUR) == [("n1", 1)]


def test_several_promises_do_not_count_on_the_same_devices():
    other = replace(WINDOW, name="q", site="", begins_ms=NOW + 40 * MINUTE)
    nodes = [node("n1", devices=6), node("n2", devices=8)]
    assert wants(calendar=(other, WINDOW), nodes=nodes) == [("n1", 4), ("n1", 2), ("n2", 2)]


def passing(tasks, running=(), calendar=(WINDOW,), **options):
    nodes = [node("n1", running=running)]
    planner = Planner(Index(nodes, CATALOGUE))
    world = Snapshot(
        nodes=tuple(nodes), pending=tuple(tasks), catalogue=CATALOGUE, running=tuple(running),
        reservations=calendar, now_ms=NOW,
    )  # fmt: skip
    return rule(world, planner, **options), planner


@pytest.mark.parametrize(
    ("count", "longest", "starts"),
    [(4, 0, True), (5, 0, False), (8, 20 * MINUTE, True), (8, 30 * MINUTE, False)],
)
def test_others_start_on_what_is_left_or_if_they_end_before(count, longest, starts):
    ruling, planner = passing([waits(count=count, longest_ms=longest)])
    assert isinstance(ruling.decisions[0], Placed) is starts
    if not starts:
        assert ruling.decisions[0].reason.code == "HELD_FOR_RESERVATION"
        assert len(planner.index.hosts["n1"].view().held) == 0


def test_a_promise_stands_until_it_is_looked_at_anew():
    eight = tuple(f"gpu-{i}" for i in range(8))
    busy = runs("busy", devices=eight[:6], priority=99, worked_ms=0, longest_ms=HOUR)
    head = waits("head", 1, count=8, priority=90)
    first, planner = passing([head], [busy], ())
    (promise,) = first.shadows
    small = waits("small", 2, count=2)
    world = Snapshot((), (head, small), CATALOGUE, (busy,), now_ms=NOW + MINUTE)
    second = rule(world, planner, RulingRules(), promised=first.shadows)
    assert second.shadows == (promise,)
    assert [x.reason.code for x in second.decisions] == ["CHIP_BUSY", "KEPT_FOR_ANOTHER"]
    alone = rule(replace(world, pending=(small,)), planner, promised=first.shadows)
    assert isinstance(alone.decisions[0], Placed)


def test_what_can_never_run_is_no_head():
    never = waits("never", 1, count=8, tasks=2, priority=90, submitted_ms=NOW - 9 * HOUR)
    other = waits("other", 2, count=8)
    ruling, _ = passing([never, other], (), ())
    assert [x.task.job for x in ruling.decisions] == ["never", "other"]
    assert isinstance(ruling.decisions[1], Placed)
    assert ruling.shadows == ()


def test_what_a_promise_leaves_is_given_once_in_later_passes_too():
    busy = runs("busy", devices=("gpu-0", "gpu-1"), priority=99, worked_ms=0, longest_ms=HOUR)
    head = waits("head", 1, count=7, priority=90)
    first, planner = passing([head, waits("one", 2)], [busy], ())
    assert [type(x).__name__ for x in first.decisions] == ["Waiting", "Placed"]
    world = Snapshot((), (head, waits("two", 3)), CATALOGUE, (busy,), now_ms=NOW + MINUTE)
    second = rule(world, planner, promised=first.shadows)
    assert [x.reason.code for x in second.decisions] == ["CHIP_BUSY", "KEPT_FOR_ANOTHER"]
