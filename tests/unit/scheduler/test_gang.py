"""Where the members of a gang go: few nodes, one rack, and the tightest that holds them all."""

from dataclasses import replace

from gridlease_scheduler.domain.job import Span
from gridlease_scheduler.domain.node import Device
from gridlease_scheduler.domain.plan import Placed, Snapshot, Waiting, decide, plan

from tests.unit.scheduler.fleet import CATALOGUE, GIB, needs, node, task


def gang(tasks, count=8, span=Span.ANY, **fields):
    need = needs("A100", count=count, span=span, **fields)
    return replace(task(need=need), tasks=tasks)


def host(name, devices=8, **fields):
    return node(name, *["A100-80GB"] * devices, cpu_milli=256_000, **fields)


def where(nodes, one):
    decision = decide(one, nodes, CATALOGUE)
    assert isinstance(decision, Placed), decision
    return sorted(member.node_id for member in decision.members)


def why(nodes, one):
    decision = decide(one, nodes, CATALOGUE)
    assert isinstance(decision, Waiting), decision
    return decision.reason


def test_a_gang_goes_to_the_rack_with_the_least_room_that_holds_it():
    wide = [host(f"a{n}", rack="wide") for n in range(3)]
    tight = [host(f"b{n}", rack="tight") for n in range(2)]
    assert where(wide + tight, gang(2)) == ["b0", "b1"]
    assert where(wide + tight, gang(3)) == ["a0", "a1", "a2"]


def test_it_spreads_over_racks_only_if_it_must_and_may():
    nodes = [host(f"a{n}", rack="a") for n in range(2)] + [host("b0", rack="b")]
    assert where(nodes, gang(3)) == ["a0", "a1", "b0"]
    reason = why(nodes, gang(3, span=Span.RACK))
    assert reason.code == "GANG_DOES_NOT_FIT"
    assert reason.message.startswith("There is room for 2 of its 3 tasks in any one rack now")


def test_members_that_fit_on_one_host_share_it():
    nodes = [host(f"a{n}", 4, rack="a") for n in range(2)] + [host("b0", 8, rack="b")]
    assert where(nodes, gang(2, count=4)) == ["b0", "b0"]


def test_a_gang_of_one_host_does_not_leave_it():
    nodes = [host(f"a{n}", 4, rack="a") for n in range(2)]
    assert why(nodes, gang(2, count=4, span=Span.HOST)).evidence["room"] == "1"


def test_sites_and_rails_are_kept_to_where_asked():
    nodes = [
        host("a0", rack="r1", rail="x", site="east"),
        host("a1", rack="r2", rail="x", site="east"),
        host("b0", rack="r1", rail="y", site="west"),
    ]
    assert where(nodes, gang(2, span=Span.RAIL)) == ["a0", "a1"]
    assert where(nodes, gang(2, span=Span.SITE)) == ["a0", "a1"]
    assert why(nodes, gang(3, span=Span.SITE)).code == "GANG_DOES_NOT_FIT"
    assert where(nodes, gang(3)) == ["a0", "a1", "b0"]


def test_a_node_whose_rack_is_not_known_is_a_rack_of_its_own():
    nodes = [host("a0"), host("a1")]
    assert why(nodes, gang(2, span=Span.RACK)).code == "GANG_DOES_NOT_FIT"
    assert where(nodes, gang(2, count=4, span=Span.RACK)) in (["a0", "a0"], ["a1", "a1"])


def test_devices_of_one_island_go_together():
    devices = tuple(
        Device(f"gpu-{n}", "A100-80GB", "nvidia", 80 * GIB, island=f"i{n // 4}") for n in range(8)
    )
    one = replace(host("n"), devices=devices, held=frozenset({"gpu-0"}))
    decision = decide(gang(1, count=4), [one], CATALOGUE)
    assert decision.allocation.device_ids == ("gpu-4", "gpu-5", "gpu-6", "gpu-7")
    decision = decide(gang(1, count=2), [one], CATALOGUE)
    assert decision.allocation.device_ids == ("gpu-1", "gpu-2")


def test_alternatives_are_tried_when_the_first_choice_has_no_room():
    need = needs("H100", count=2)
    other = replace(need.accelerator, chips=("A100",), count=4)
    need = replace(need, alternatives=(other,), alternatives_ordered=True)
    nodes = [host("a"), node("h", "H100-80GB")]
    decision = decide(task(need=need), nodes, CATALOGUE)
    assert decision.allocation.chip == "A100-80GB"
    assert len(decision.allocation.device_ids) == 4


def test_a_gang_that_waits_takes_nothing_from_those_after_it():
    nodes = (host("a", rack="r"),)
    asked = (replace(gang(2), job="large", number=1), replace(gang(1), job="small", number=2))
    decisions = plan(Snapshot(nodes, asked, CATALOGUE))
    assert [(x.task.job, isinstance(x, Placed)) for x in decisions] == [
        ("large", False),
        ("small", True),
    ]


def test_a_placed_gang_says_where_and_how_many():
    decision = decide(gang(2), [host("a", rack="r"), host("b", rack="r")], CATALOGUE)
    assert decision.reason.message.startswith("2 tasks with 8 x A100-80GB each on a, b")
    assert decision.reason.evidence["hosts"] == "2"
