"""Whole passes: capacity, quotas and windows hold, and nothing stays held when a pass is over."""

from dataclasses import replace

from gridlease_scheduler.domain.job import Span, Tier
from gridlease_scheduler.domain.node import with_held
from gridlease_scheduler.domain.order.quota import Book
from gridlease_scheduler.domain.placing.index import Index
from gridlease_scheduler.domain.plan import Placed, Planner
from gridlease_scheduler.domain.ruling import rule
from gridlease_scheduler.domain.snapshot import Offered, Quota, Reservation, Snapshot
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.property.scheduler.test_preempt import fleets
from tests.unit.scheduler.standing import A100, CATALOGUE, HOUR, MINUTE, waits

NOW = 1_000 * HOUR
QUEUES = st.lists(
    st.builds(
        dict,
        count=st.integers(1, 4),
        tasks=st.integers(1, 3),
        tier=st.sampled_from(tuple(Tier)),
        priority=st.sampled_from((0, 50, 90)),
        project=st.sampled_from(("p", "q", "r")),
        tenant=st.sampled_from(("a", "b")),
        longest_ms=st.sampled_from((0, 10 * MINUTE, 5 * HOUR)),
        reservation=st.sampled_from(("", "", "", "exam")),
        submitted_ms=st.sampled_from((NOW - MINUTE, NOW - 9 * HOUR)),
        need=st.sampled_from(({}, {"span": Span.HOST}, {"max_price_nano_per_hour": 3})),
    ),
    max_size=8,
).map(lambda asked: [waits(f"w{at}", at, **fields) for at, fields in enumerate(asked, 100)])
QUOTAS = st.sampled_from(
    (
        (),
        (Quota("p", "", A100, 2_000, 6_000), Quota("q", "", "", 4_000, 0)),
        (Quota("o", "", A100, 0, 8_000), Quota("p", "o", A100, 4_000), Quota("q", "o", "")),
    )
)
CALENDARS = st.sampled_from(
    (
        (),
        (Reservation("exam", "p", A100, "", 4_000, NOW + 30 * MINUTE, NOW + HOUR),),
        (Reservation("exam", "p", A100, "s1", 6_000, NOW - MINUTE, NOW + HOUR),),
    )
)


@st.composite
def snapshots(draw):
    nodes, leases = draw(fleets())
    projects = st.sampled_from(("p", "q", "r"))
    of_job = {x.job: draw(projects) for x in leases}
    leases = [replace(x, project=of_job[x.job]) for x in leases]
    quotas = draw(QUOTAS)
    book = Book(quotas, CATALOGUE, leases)
    if any(x.limit_milli and book.held(x.project, A100) > x.limit_milli for x in quotas):
        quotas = ()  # not a state that was ever reached
    return Snapshot(
        nodes=tuple(nodes),
        pending=tuple(draw(QUEUES)),
        catalogue=CATALOGUE,
        running=tuple(leases),
        quotas=quotas,
        reservations=draw(CALENDARS),
        offers=(Offered(A100, Tier.SPOT, 2), Offered(A100, Tier.ON_DEMAND, 4)),
        now_ms=NOW,
    )


@settings(max_examples=150, deadline=None)
@given(snapshots())
def test_a_pass_keeps_capacity_quotas_and_windows(snapshot):
    planner = Planner(Index(snapshot.nodes, CATALOGUE))
    ruling = rule(snapshot, planner)
    assert sorted(x.task.job for x in ruling.decisions) == sorted(x.job for x in snapshot.pending)
    nodes = {x.node_id: x for x in snapshot.nodes}
    book = Book(snapshot.quotas, CATALOGUE, snapshot.running)
    inside = sum(x.allocation.quantity_milli for x in snapshot.running if x.reservation)
    for decision in ruling.decisions:
        if not isinstance(decision, Placed):
            assert decision.reason.code
            continue
        assert len(decision.members) == decision.task.tasks
        for member in decision.members:
            held = nodes[member.node_id]
            assert held.held.isdisjoint(member.allocation.device_ids)
            nodes[member.node_id] = with_held(held, member.allocation)
            book.hold(decision.task.project, A100, member.allocation.quantity_milli)
            if decision.task.reservation:
                inside += member.allocation.quantity_milli
    for quota in snapshot.quotas:
        row = Book([quota], CATALOGUE)
        assert row.rules
        if quota.limit_milli and quota.chip:
            assert book.held(quota.project, A100) <= quota.limit_milli
    for window in snapshot.reservations:
        assert inside <= window.quantity_milli
    # what was held for others during the pass is free again after it
    for node in planner.index.views():
        assert node.held == nodes[node.node_id].held
        assert node.used_cpu_milli == nodes[node.node_id].used_cpu_milli


@settings(max_examples=50, deadline=None)
@given(snapshots(), st.randoms(use_true_random=False))
def test_the_same_input_gives_the_same_decisions(snapshot, random):
    shuffled = {}
    for name in ("nodes", "pending", "running", "quotas", "reservations"):
        items = list(getattr(snapshot, name))
        random.shuffle(items)
        shuffled[name] = tuple(items)
    one, two = rule(snapshot), rule(replace(snapshot, **shuffled))
    assert [(x.task.job, type(x)) for x in one.decisions] == [
        (x.task.job, type(x)) for x in two.decisions
    ]
    placed = [[x.members for x in each.decisions if isinstance(x, Placed)] for each in (one, two)]
    assert placed[0] == placed[1]
    assert [[v.job for v in x.victims] for x in one.evictions] == [
        [v.job for v in x.victims] for x in two.evictions
    ]


@settings(max_examples=100, deadline=None)
@given(snapshots())
def test_nobody_is_put_out_twice_or_for_a_lower_one(snapshot):
    ruling = rule(snapshot)
    gone = [victim.job for eviction in ruling.evictions for victim in eviction.victims]
    assert len(gone) == len(set(gone))
    told = {x.job for x in snapshot.running if x.closing or x.tier is Tier.RESERVED}
    assert told.isdisjoint(gone)
    placed = {x.task.job for x in ruling.decisions if isinstance(x, Placed)}
    assert placed.isdisjoint(x.task.job for x in ruling.evictions)
