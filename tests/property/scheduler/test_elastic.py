"""Elastic decisions: never more than there is, within each job's bounds, the same each time."""

import itertools
from collections import Counter

from gridlease_scheduler.domain.sizing.elastic import Snapshot, decide
from gridlease_scheduler.domain.sizing.lessons import Lessons, Row
from gridlease_scheduler.domain.sizing.seats import Held
from gridlease_scheduler.domain.sizing.shares import Option, share
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.scheduler.trainees import HOSTS, trainee

RATES = st.floats(0.01, 100.0)


@st.composite
def holdings(draw):
    """Jobs on the hosts, which are not asked for more than they have."""
    free = {host.node: host.devices for host in HOSTS}
    jobs = []
    for index in range(draw(st.integers(0, 12))):
        chip = draw(st.sampled_from(("L4", "A100")))
        nodes = {}
        for host in draw(st.permutations([h for h in HOSTS if h.chip == chip]))[:2]:
            count = draw(st.integers(0, free[host.node]))
            if count:
                nodes[host.node] = count
                free[host.node] -= count
        has = Held(chip, tuple(sorted(nodes.items()))) if nodes else None
        least = draw(st.integers(1, 6))
        seen = draw(st.integers(0, 8))
        rows = {
            each: tuple(Row(n, 1, draw(RATES)) for n in range(1, max(1, 2 * seen) + 1, 3))
            for each in draw(st.sets(st.sampled_from(("L4", "A100", "H100"))))
        }
        jobs.append(
            trainee(
                f"j{index}", has=has, rows=rows or {"L4": ()}, seen=seen, least=least,
                most=least + draw(st.integers(0, 20)), app=draw(st.sampled_from("xyz")),
                done=draw(st.floats(0.0, 1.0)), restart_left_s=draw(st.floats(0.0, 50.0)),
                restart_s=draw(st.floats(0.0, 300.0)), device_s=draw(st.floats(0.0, 1e6)),
            )
        )  # fmt: skip
    return jobs


def sound(jobs, found):
    """Nothing twice, nothing empty, nothing on the wrong chip, bounds kept."""
    chips = {host.node: host.chip for host in HOSTS}
    used = Counter()
    by_name = {job.name: job for job in jobs}
    for name, held in found.items():
        assert by_name[name].least <= held.devices <= by_name[name].most
        assert len({node for node, _ in held.nodes}) == len(held.nodes)
        for node, count in held.nodes:
            assert count > 0
            assert chips[node] == held.chip
            used[node] += count
    assert all(used[host.node] <= host.devices for host in HOSTS)


@settings(deadline=None)
@given(holdings(), holdings())
def test_every_decision_is_sound_and_repeatable(first, second):
    lessons = Lessons()
    for at_s, jobs in ((0.0, first), (60.0, second), (120.0, second)):
        snapshot = Snapshot(at_s, HOSTS, tuple(jobs))
        found, learned = decide(snapshot, lessons)
        sound(jobs, found)
        assert decide(snapshot, lessons) == (found, learned)
        lessons = learned


OPTIONS = st.lists(
    st.builds(Option, st.integers(0, 1), st.integers(1, 4), st.floats(0.01, 10.0)), max_size=4
)


@settings(deadline=None)
@given(st.lists(OPTIONS, max_size=4), st.tuples(st.integers(0, 6), st.integers(0, 6)))
def test_shares_against_brute_force(jobs, capacity):
    def fits(choice):
        used = Counter()
        for option in choice:
            if option:
                used[option.chip] += option.devices
        return all(used[chip] <= room for chip, room in enumerate(capacity))

    found = share(jobs, capacity)
    assert fits(found)
    assert all(option is None or option in jobs[i] for i, option in enumerate(found))
    worth = sum(option.value for option in found if option)
    every = itertools.product(*([None, *options] for options in jobs))
    best = max(sum(x.value for x in choice if x) for choice in every if fits(choice))
    assert worth <= best + 1e-6
    assert worth >= best - 1e-6, "small cases are solved"
