"""The paths that placements get: what is implied, what is counted, and who is set aside."""

from dataclasses import replace

from gridlease_scheduler.domain.job import NetworkClass, NetworkNeed
from gridlease_scheduler.domain.links.network import Link
from gridlease_scheduler.domain.links.paths import Barrier, Book, asks
from gridlease_scheduler.domain.placing.index import Index
from gridlease_scheduler.domain.plan import Placed, Planner, Waiting
from gridlease_scheduler.domain.ruling import rule
from gridlease_scheduler.domain.snapshot import Snapshot

from tests.unit.scheduler.standing import CATALOGUE, node, runs, waits

R1, R2, SITE = "racks/s1/r1", "racks/s1/r2", "sites/s1"
UP1 = Link("up1", R1, SITE, 10_000, 50)
UP2 = Link("up2", R2, SITE, 25_000, 50)
FLEET = (
    node("n1", rack="r1", link_mbps=100_000),
    node("n2", rack="r1", link_mbps=100_000),
    node("n3", rack="r2", link_mbps=100_000),
)


def network(mbps=0, network_class=NetworkClass.STANDARD, latency_us=0):
    return {"network": NetworkNeed(mbps, network_class, latency_us)}


def snapshot(*tasks, links=(UP1, UP2), nodes=FLEET, running=()):
    return Snapshot(nodes, tasks, CATALOGUE, running=running, links=links, now_ms=1)


def decided(*tasks, **world):
    return rule(snapshot(*tasks, **world)).decisions


def paths(decision):
    assert isinstance(decision, Placed), decision
    return [(x.node_id, x.path) for x in decision.members]


def book(*links, running=(), nodes=FLEET):
    return Book(links, running, {x.node_id: x for x in nodes}.get)


def placed(task, nodes=FLEET):
    return Planner(Index(nodes, CATALOGUE)).decide(task)


def test_only_what_is_narrow_needs_to_be_described():
    [free] = decided(waits(need=network(50_000)), links=(UP2,), nodes=FLEET[:2])
    assert paths(free) == [("n1", ())]
    own = Link("own", "nodes/n1", R1, 5_000, 1)
    [narrow] = decided(waits(need=network(4_000)), links=(own, UP1), nodes=FLEET[:1])
    assert paths(narrow) == [("n1", ("own", "up1"))]
    [wide] = decided(waits(need=network(6_000)), links=(own, UP1), nodes=FLEET[:1])
    assert (wide.reason.code, wide.reason.evidence["most_free_mbit"]) == (
        "NETWORK_GUARANTEE", "5000",
    )  # fmt: skip


def test_a_described_way_that_is_down_has_no_other_beside_it():
    down = replace(UP1, up=False)
    [cut] = decided(waits(need=network(1)), links=(down,), nodes=FLEET[:2])
    assert isinstance(cut, Waiting)
    assert cut.reason.code == "NETWORK_UNREACHABLE"
    [elsewhere] = decided(waits(need=network(1)), links=(down,))
    assert paths(elsewhere) == [("n3", ())]


def test_a_cable_between_two_nodes_leads_nowhere():
    cable = Link("cable", "nodes/n1", "nodes/n2", 1, 1)
    [one] = decided(waits(need=network(1_000)), links=(cable, UP1), nodes=FLEET[:1])
    assert paths(one) == [("n1", ("up1",))]


def test_what_asks_for_nothing_takes_no_path():
    assert not asks(NetworkNeed(network_class=NetworkClass.BULK))
    assert asks(NetworkNeed(network_class=NetworkClass.CRITICAL))
    assert asks(NetworkNeed(latency_us=1))
    [plain] = decided(waits(), links=(replace(UP1, up=False), replace(UP2, up=False)))
    assert paths(plain) == [("n1", ())]


def test_leases_count_on_their_paths_and_on_those_they_would_have_been_given():
    known = runs("a", "n1", network_mbps=3_000, network_path=("up1", "gone"))
    never = runs("b", "n2", ("gpu-1",), network_mbps=2_000)  # placed before anything was described
    stranger = runs("c", "left", network_mbps=9_000)
    found = book(UP1, UP2, running=(known, never, stranger))
    assert found.free_mbit == {"up1": 5_000, "up2": 25_000}
    [fits] = decided(
        waits(need=network(5_000)), links=(UP1,), nodes=FLEET[:2], running=(known, never)
    )
    assert isinstance(fits, Placed)
    [not_] = decided(
        waits(need=network(5_001)), links=(UP1,), nodes=FLEET[:2], running=(known, never)
    )
    assert isinstance(not_, Waiting)


def test_a_link_that_was_promised_too_much_promises_no_more_and_says_so_in_the_same_words():
    shrunk = replace(UP1, capacity_mbit=1_000)
    old = runs("a", "n1", network_mbps=3_000, network_path=("up1",))
    first, second = (
        decided(waits(need=network(mbps)), links=(shrunk,), nodes=FLEET[:2], running=(old,))[0]
        for mbps in (1, 7)
    )
    assert first.reason.message == second.reason.message
    assert first.reason.evidence["most_free_mbit"] == "0"
    assert not any(place in first.reason.message for place in ("n1", "r1", "s1"))


def test_every_member_of_a_gang_is_counted_before_any_is_written():
    gang = waits(count=8, tasks=2, need=network(6_000))
    [both] = decided(gang, links=(UP1, UP2))
    assert sorted(path for _, path in paths(both)) == [("up1",), ("up2",)]
    [three] = decided(replace(gang, tasks=3), links=(UP1, UP2))
    assert three.reason.code == "NETWORK_GUARANTEE"


def test_a_rack_that_carries_not_even_one_member_is_set_aside_whole():
    answer = book(replace(UP1, capacity_mbit=1)).route(placed(waits(need=network(6_000))))
    assert isinstance(answer, Barrier)
    assert [answer.scope(x) for x in FLEET] == [True, True, False]
    crowded = book(UP1).route(placed(waits(count=8, tasks=2, need=network(6_000)), FLEET[:2]))
    assert sorted(answer.scope(x) for x in FLEET) == [False, True, True]
    assert sum(crowded.scope(x) for x in FLEET) == 1


def test_racks_of_a_gang_are_joined_and_what_joins_them_is_promised_once():
    far = node("f1", rack="r9", site="s2", link_mbps=100_000)
    wan = Link("wan", SITE, "sites/s2", 10_000, 20)
    world = (FLEET[0], far)
    gang = waits(count=8, tasks=2, need=network(6_000))
    found = book(UP1, wan, nodes=world)
    routed = found.route(placed(gang, world))
    # Both reach their sites; one of them speaks for what lies between.
    assert sorted(link for x in routed.members for link in x.path) == ["up1", "wan"]
    found.count(routed)
    assert found.free_mbit == {"up1": 4_000, "wan": 4_000}
    [apart] = decided(gang, links=(UP1,), nodes=world)
    assert apart.reason.code == "NETWORK_UNREACHABLE"


def test_critical_traffic_gets_the_path_that_can_carry_it_and_bulk_leaves_the_quick_one_free():
    thick = Link("thick", R1, SITE, 40_000, 400)
    tasks = [
        waits("bound", 1, need=network(1_000, NetworkClass.CRITICAL, 100)),
        waits("critical", 2, need=network(1_000, NetworkClass.CRITICAL)),
        waits("plain", 3, need=network(1_000)),
        waits("over", 4, need=network(9_000)),
    ]
    found = {x.task.job: x for x in decided(*tasks, links=(UP1, thick), nodes=FLEET[:1])}
    assert [found[x].members[0].path for x in ("bound", "critical", "plain", "over")] == [
        ("up1",), ("thick",), ("up1",), ("thick",),
    ]  # fmt: skip


def test_alike_jobs_are_refused_once_and_all_nodes_come_back_afterwards():
    planner = Planner(Index(FLEET, CATALOGUE))
    tasks = [waits(f"w{at}", at, need=network(26_000)) for at in range(50)]
    ruling = rule(snapshot(*tasks, waits("plain", 99)), planner)
    assert {x.reason.code for x in ruling.decisions if isinstance(x, Waiting)} == {
        "NETWORK_GUARANTEE"
    }
    assert sum(isinstance(x, Placed) for x in ruling.decisions) == 1
    assert not any(x.cordoned for x in planner.index.views())
    assert not ruling.shadows
    assert not ruling.evictions


def test_a_line_that_two_crossings_share_carries_both_or_none():
    world = (
        FLEET[0],
        node("f1", rack="r1", site="s2", link_mbps=100_000),
        node("f2", rack="r1", site="s3", link_mbps=100_000),
    )
    gang = waits(count=8, tasks=3, need=network(6_000))
    # In the middle of three: both crossings of the gang go over the one line, whatever the order.
    star = [Link(f"w{k}", "racks/s9/hub", f"sites/s{k}", 100_000, 1) for k in (1, 2, 3)]
    assert isinstance(book(*star, nodes=world).route(placed(gang, world)), Placed)
    middle = placed(gang, world).members[1].node_id
    at = {"n1": 1, "f1": 2, "f2": 3}[middle]
    star[at - 1] = replace(star[at - 1], capacity_mbit=11_999)
    answer = book(*star, nodes=world).route(placed(gang, world))
    assert isinstance(answer, Barrier)
    assert answer.reason.code == "NETWORK_GUARANTEE"
