"""The head's shadow start, and what may start before it."""

from gridlease_scheduler.domain.job import Allocation, Span
from gridlease_scheduler.domain.order.backfill import late, passed, shadow

from tests.unit.scheduler.standing import A100, CATALOGUE, GIB, HOUR, MINUTE, node, runs, waits

NOW = 1_000 * HOUR
EIGHT = tuple(f"gpu-{i}" for i in range(8))


def world(*leases, names=("n1", "n2"), **changes):
    return [node(name, running=leases, **changes) for name in names]


def promise(task, nodes, leases, **options):
    return shadow(task, nodes, leases, CATALOGUE, NOW, **options)


def one(count=1):
    ids = tuple(f"x-{i}" for i in range(count))
    return Allocation(1_000, GIB, GIB, ids, A100, 1_000 * count)


def test_the_head_starts_when_enough_has_ended():
    leases = [
        runs("a", "n1", EIGHT, worked_ms=HOUR, longest_ms=3 * HOUR),
        runs("b", "n2", EIGHT, worked_ms=HOUR, longest_ms=2 * HOUR),
    ]
    nodes = world(*leases)
    found = promise(waits(count=8), nodes, leases)
    assert found.start_ms == NOW + late(HOUR)
    assert found.places == (("n2", 1),)
    gang = promise(waits(count=8, tasks=2), nodes, leases)
    assert gang.start_ms == NOW + late(2 * HOUR)
    assert gang.places == (("n1", 1), ("n2", 1))


def test_what_has_no_known_end_never_ends():
    leases = [runs("a", "n1", EIGHT), runs("b", "n2", EIGHT[:4])]
    nodes = world(*leases)
    assert promise(waits(count=8), nodes, leases) is None
    assert promise(waits(count=16), nodes, leases) is None


def test_a_closing_lease_comes_free_soon():
    leases = [runs("a", "n1", EIGHT, closing=True, notice_ms=30_000), runs("b", "n2", EIGHT)]
    found = promise(waits(count=8), world(*leases), leases)
    assert found.start_ms == NOW + 30_000 + MINUTE


def test_a_gang_waits_for_one_rack():
    leases = [
        runs("a", "n1", EIGHT, worked_ms=0, longest_ms=HOUR),
        runs("b", "n2", EIGHT, worked_ms=0, longest_ms=2 * HOUR),
        runs("c", "n3", EIGHT, worked_ms=0, longest_ms=3 * HOUR),
    ]
    nodes = [
        node("n1", running=leases, rack="r1"),
        node("n2", running=leases, rack="r2"),
        node("n3", running=leases, rack="r2"),
    ]
    anywhere = promise(waits(count=8, tasks=2), nodes, leases)
    assert [name for name, _ in anywhere.places] == ["n1", "n2"]
    together = promise(waits(count=8, tasks=2, need={"span": Span.RACK}), nodes, leases)
    assert [name for name, _ in together.places] == ["n2", "n3"]
    assert together.start_ms == NOW + late(3 * HOUR)


def test_later_jobs_start_if_they_end_before_or_stay_off():
    leases = [runs("a", "n1", EIGHT[:6], worked_ms=0, longest_ms=2 * HOUR), runs("b", "n2", EIGHT)]
    found = promise(waits(count=8), world(*leases), leases)
    assert found.places == (("n1", 1),)
    assert passed(found, "n1", one(2), HOUR, NOW) == found
    assert passed(found, "n1", one(2), 2 * HOUR, NOW) == found  # late ends are assumed of both
    assert passed(found, "n2", one(2), 0, NOW) == found
    assert set(found.spare) == {"n1"}
    assert not found.spare["n1"].covers(one(2))


def test_what_the_head_leaves_is_given_once():
    leases = [runs("a", "n1", EIGHT[:2], worked_ms=0, longest_ms=HOUR)]
    nodes = world(*leases, names=("n1",))
    found = promise(waits(count=7), nodes, leases)
    assert found.spare["n1"].covers(one(1))
    after = passed(found, "n1", one(1), 0, NOW)
    assert not after.spare["n1"].covers(one(1))
    assert passed(found, "n1", one(1), 10 * MINUTE, NOW) == found


def test_places_promised_to_others_are_left_alone():
    leases = [runs("a", "n1", EIGHT, longest_ms=HOUR), runs("b", "n2", EIGHT, longest_ms=HOUR)]
    nodes = world(*leases)
    first = promise(waits(count=8), nodes, leases)
    taken = {name for name, _ in first.places}
    second = promise(waits(count=8), nodes, leases, taken=taken)
    assert {name for name, _ in second.places}.isdisjoint(taken)
