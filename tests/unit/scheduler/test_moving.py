"""For whom the slow path moves jobs, and which empty hosts it would put to sleep."""

from dataclasses import replace

from gridlease_scheduler.domain.electricity.idle import SleepPolicy, to_sleep
from gridlease_scheduler.domain.electricity.resting import empty_since, hosts
from gridlease_scheduler.domain.eviction.moving import MovingRules, made_room, why
from gridlease_scheduler.domain.placing.index import Index
from gridlease_scheduler.domain.plan import Planner
from gridlease_scheduler.domain.snapshot import Site

from tests.unit.scheduler.standing import A100, CATALOGUE, HOUR, MINUTE, node, runs, waits

NOW = 1_000 * HOUR
RULES = MovingRules()
RUNNING = [
    runs("a", "n1", ("gpu-0",), saved_ms=HOUR),
    runs("b", "n2", ("gpu-0",), saved_ms=HOUR),
]
LARGE = waits("large", count=2, submitted_ms=NOW - HOUR)


def found(task=LARGE, *, made=None, rules=RULES, running=RUNNING, **second):
    nodes = [node("n1", 2, running=running), node("n2", 2, running=running, **second)]
    planner = Planner(Index(nodes, CATALOGUE))
    before = planner.index.views()
    answer = made_room([task], running, planner, made or {}, NOW, rules)
    assert planner.index.views() == before
    return answer


def test_one_is_moved_so_that_two_devices_are_free_on_one_node():
    [one] = found()
    assert one.job == "large"
    assert len(one.moves) == 1
    reason = why(one.moves[0], one, "projects/p")
    assert (reason.code, "for" in reason.evidence) == ("DEFRAGMENTED", False)


def test_the_budget_is_of_the_last_hour():
    spent = [NOW - MINUTE] * RULES.moves_per_hour
    assert not found(made={A100: spent})
    assert found(made={A100: [at - HOUR for at in spent]})
    assert not found(rules=MovingRules(moves_per_hour=0))


def test_nobody_is_moved_for_one_that_fits_or_that_has_just_come():
    assert not found(replace(LARGE, needs=waits().needs))
    assert not found(replace(LARGE, submitted_ms=NOW - 1_000))
    assert not found(replace(LARGE, queued_ms=NOW - 1_000))


def test_nobody_is_moved_to_a_node_that_is_unlike_its_own():
    assert not found(site="elsewhere")
    assert not found(drivers=(("cuda", "550.54"),))


def test_whose_name_is_told_only_within_a_project():
    task = replace(LARGE, job="projects/p/jobs/large")
    [one] = found(task)
    assert why(one.moves[0], one, "projects/p").evidence["for"] == "projects/p/jobs/large"
    assert "for" not in why(one.moves[0], one, "projects/q").evidence


def test_hosts_empty_for_long_are_proposed_but_for_a_reserve():
    nodes = [node(f"n{x}", 2) for x in range(3)]
    nodes += [node("busy", 2, running=[runs("a", "busy")]), node("unreal", 2, emulated=True)]
    since = empty_since(nodes, {}, NOW)
    assert set(since) == {"n0", "n1", "n2"}
    later = NOW + HOUR
    assert empty_since(nodes, since, later) == since
    sites = (Site("s1", pue_milli=1_500),)
    found = to_sleep(hosts(nodes, since, sites, CATALOGUE, 300_000), later, SleepPolicy())
    assert [x.node_id for x in found] == ["n1", "n2"]
    idle = CATALOGUE.find(A100).idle_watts
    assert found[0].saved_mw == 2 * idle * 1_500
    assert not to_sleep(hosts(nodes, since, sites, CATALOGUE, 300_000), NOW, SleepPolicy())
