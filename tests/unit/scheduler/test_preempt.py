"""Who gives way, to whom, and what it costs."""

import dataclasses

from gridlease_scheduler.domain.eviction.preempt import (
    Coming,
    Eviction,
    EvictionRules,
    Spared,
    choose,
    reclaim,
)
from gridlease_scheduler.domain.job import NetworkNeed, Span, Tier
from gridlease_scheduler.domain.order.quota import Book
from gridlease_scheduler.domain.snapshot import Quota

from tests.unit.scheduler.standing import A100, CATALOGUE, HOUR, MINUTE, node, runs, waits

replace = dataclasses.replace


def ids(first, count):
    return tuple(f"gpu-{i}" for i in range(first, first + count))


def spot(job, on, first, count, **changes):
    return runs(job, on, ids(first, count), **({"tier": Tier.SPOT} | changes))


def answer(task, leases, names=("n1",), book=None, nodes=None, **options):
    nodes = nodes or [node(name, running=leases) for name in names]
    return choose(task, nodes, leases, CATALOGUE, book, **options)


def victims(*args, **options):
    found = answer(*args, **options)
    assert isinstance(found, Eviction), found
    return [x.job for x in found.victims]


def code(*args, **options):
    found = answer(*args, **options)
    assert isinstance(found, Spared), found
    assert found.reason.message
    assert found.reason.hint
    return found.reason.code


def test_a_lower_class_gives_way():
    leases = [spot("s", "n1", 0, 4), runs("o", "n1", ids(4, 4))]
    found = answer(waits(count=4), leases)
    assert [x.job for x in found.victims] == ["s"]
    assert found.places == (("n1", 1),)
    assert found.notice_ms == 30_000
    assert found.reason.code == "PREEMPTING"
    assert found.reason.message == "It takes the place of 1 job that was told to end within 30 s."
    assert "s" not in found.told.evidence.values()  # nobody is told whose the others are
    assert found.told.code == "PREEMPTED"


def test_a_lower_priority_of_the_same_class_gives_way():
    leases = [runs("low", "n1", ids(0, 8), priority=10)]
    assert victims(waits(count=8, priority=11), leases) == ["low"]
    assert code(waits(count=8, priority=10), leases) == "NOTHING_TO_PREEMPT"
    assert code(waits(count=8, tier=Tier.SPOT, priority=100), leases) == "NOTHING_TO_PREEMPT"


def test_reserved_work_is_never_put_out():
    leases = [runs("r", "n1", ids(0, 8), tier=Tier.RESERVED, priority=0)]
    task = waits(count=8, tier=Tier.RESERVED, priority=100)
    assert isinstance(answer(task, leases), Spared)


def test_spot_work_goes_before_on_demand_work_whatever_it_loses():
    leases = [
        spot("s", "n1", 0, 8, worked_ms=90 * HOUR),
        runs("o", "n2", ids(0, 8), priority=1, worked_ms=HOUR, saved_ms=HOUR),
    ]
    assert victims(waits(count=8), leases, ("n1", "n2")) == ["s"]


def test_the_least_work_is_lost():
    leases = [
        spot("long", "n1", 0, 4, worked_ms=9 * HOUR),
        spot("saved", "n1", 4, 4, worked_ms=9 * HOUR, saved_ms=9 * HOUR - MINUTE),
        spot("short", "n2", 0, 8, worked_ms=HOUR),
    ]
    assert victims(waits(count=4), leases, ("n1", "n2")) == ["saved"]
    assert victims(waits(count=8), leases, ("n1", "n2")) == ["short"]


def test_the_whole_gang_of_a_victim_is_counted():
    leases = [
        spot("gang", "n1", 0, 8, worked_ms=HOUR),
        spot("gang", "n2", 0, 8, worked_ms=HOUR),
        spot("single", "n3", 0, 8, worked_ms=90 * MINUTE),
    ]
    names = ("n1", "n2", "n3")
    assert victims(waits(count=8), leases, names) == ["single"]
    assert victims(waits(count=8, tasks=2), leases, names) == ["gang"]
    found = answer(waits(count=8, tasks=2), leases, names)
    assert [len(x.leases) for x in found.victims] == [2]
    assert dict(found.places) == {"n1": 1, "n2": 1}


def test_nobody_goes_unless_the_whole_gang_fits():
    leases = [spot("s", "n1", 0, 8), runs("o", "n2", ids(0, 8))]
    assert code(waits(count=8, tasks=2), leases, ("n1", "n2")) == "PREEMPTION_TOO_SMALL"


def test_nobody_goes_who_need_not():
    leases = [spot(f"s{i}", "n1", i, 1, worked_ms=HOUR + i) for i in range(8)]
    assert victims(waits(count=3), leases) == ["s0", "s1", "s2"]
    half = [node("n1", running=leases[:6])]
    assert victims(waits(count=3), leases[:6], nodes=half) == ["s0"]


def test_everyone_has_a_while_in_peace():
    young = [spot("s", "n1", 0, 8, worked_ms=MINUTE)]
    assert code(waits(count=8), young) == "VICTIMS_PROTECTED"
    asked = [spot("s", "n1", 0, 8, worked_ms=20 * MINUTE, min_runtime_ms=30 * MINUTE)]
    assert code(waits(count=8), asked) == "VICTIMS_PROTECTED"
    often = [spot("s", "n1", 0, 8, evictions=3)]
    assert code(waits(count=8), often) == "VICTIMS_PROTECTED"
    assert victims(waits(count=8), often, rules=EvictionRules(evictions_max=4)) == ["s"]


def test_what_is_ending_already_is_enough():
    leases = [spot("s", "n1", 0, 8, closing=True), spot("t", "n2", 0, 8)]
    found = answer(waits(count=8), leases, ("n1", "n2"))
    assert isinstance(found, Coming)
    assert found.places == (("n1", 1),)
    more = answer(waits(count=8, tasks=2), leases, ("n1", "n2"))
    assert [x.job for x in more.victims] == ["t"]
    other = answer(waits(count=8), leases, ("n1", "n2"), taken={"n1"})
    assert [x.job for x in other.victims] == ["t"]


def test_room_is_made_in_one_rack():
    leases = [spot(f"s{i}", f"n{i}", 0, 8, worked_ms=(5 - i) * HOUR) for i in range(1, 5)]
    racks = {"n1": "r1", "n2": "r2", "n3": "r1", "n4": "r2"}
    nodes = [node(name, running=leases, rack=rack) for name, rack in racks.items()]
    together = waits(count=8, tasks=2, need={"span": Span.RACK})
    assert victims(together, leases, nodes=nodes) == ["s2", "s4"]
    assert victims(waits(count=8, tasks=2), leases, nodes=nodes) == ["s3", "s4"]
    assert code(replace(together, tasks=3), leases, nodes=nodes) == "PREEMPTION_TOO_SMALL"
    host = waits(count=4, tasks=2, need={"span": Span.HOST})
    assert victims(host, leases, nodes=nodes) == ["s4"]


def test_borrowers_go_before_owners():
    quotas = (Quota("projects/own", "", A100, 8_000, 0),)
    leases = [
        runs("owner", "n1", ids(0, 8), project="projects/own", priority=1, worked_ms=HOUR),
        runs("guest", "n2", ids(0, 8), project="projects/g", priority=1, worked_ms=9 * HOUR),
    ]
    book = Book(quotas, CATALOGUE, leases)
    task = waits(count=8, priority=90, project="projects/other")
    assert victims(task, leases, ("n1", "n2"), book) == ["guest"]


def test_an_owner_takes_back_its_own_whatever_the_priority():
    quotas = (Quota("projects/own", "", A100, 8_000, 0),)
    leases = [runs("guest", "n1", ids(0, 8), project="projects/g", priority=99)]
    book = Book(quotas, CATALOGUE, leases)
    task = waits(count=8, priority=1, project="projects/own")
    assert victims(task, leases, book=book) == ["guest"]
    assert code(replace(task, project="projects/x"), leases, book=book) == "NOTHING_TO_PREEMPT"


def test_quota_alone_is_taken_back_as_well():
    quotas = (
        Quota("org", "", A100, 0, 8_000),
        Quota("left", "org", A100, 4_000, 0),
        Quota("right", "org", A100, 4_000, 0),
    )
    leases = [
        runs(f"l{i}", "n1", ids(i, 1), project="left", started_ms=i, worked_ms=(9 - i) * HOUR)
        for i in range(8)
    ]
    book = Book(quotas, CATALOGUE, leases)
    task = waits(count=2, project="right")
    full = book.admits("right", A100, 2_000)
    found = reclaim(task, full, A100, leases, CATALOGUE, book)
    assert [x.job for x in found.victims] == ["l6", "l7"]
    told = [replace(x, closing=x.job in ("l6", "l7")) for x in leases]
    assert isinstance(reclaim(task, full, A100, told, CATALOGUE, book), Coming)
    young = [replace(x, worked_ms=0) for x in leases]
    assert isinstance(reclaim(task, full, A100, young, CATALOGUE, book), Spared)


def test_nobody_goes_where_the_link_is_full_anyway():
    leases = [spot("s", "n1", 0, 8), spot("t", "n2", 0, 8, worked_ms=9 * HOUR)]
    nodes = [
        node("n1", running=leases, link_mbps=10_000, reserved_mbps=8_000),
        node("n2", running=leases, link_mbps=10_000),
    ]
    fast = waits(count=8, need={"network": NetworkNeed(guaranteed_mbps=5_000)})
    assert victims(fast, leases, nodes=nodes) == ["t"]


def test_cores_are_freed_as_well():
    leases = [spot(f"s{i}", "n1", 0, 0, allocation=cores(16_000)) for i in range(4)]
    nodes = [node("n1", devices=0, running=leases)]
    task = waits(chips=(), need={"cpu_milli": 20_000})
    assert victims(task, leases, nodes=nodes) == ["s0", "s1"]


def cores(milli):
    one = runs("x").allocation
    return replace(one, cpu_milli=milli, device_ids=(), chip="cpu-x86-64", quantity_milli=milli)
