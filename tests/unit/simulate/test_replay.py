"""Runs small enough to work out by hand, and what must hold of every run."""

import dataclasses
import random

import pytest
from gridlease_scheduler.domain.job import Tier
from gridlease_simulate import clusterfile
from gridlease_simulate.outcome import STATES
from gridlease_simulate.policies import Production
from gridlease_simulate.replay import Replay
from gridlease_simulate.rules import Rules
from gridlease_simulate.spot import SpotPrices

from .small import TWO_L4, play, read_trace, recount

HOUR_MS = 3_600_000


def by_name(outcome):
    return {job.name: job for job in outcome.jobs}


def test_completion_and_waiting_by_hand():
    # Two devices: a and b run at once, c waits until a ends, 60 s after it came.
    outcome = play(
        TWO_L4,
        "submit_s,duration_s,name,chip\n0,100,a,L4\n10,200,b,L4\n40,50,c,L4\n",
    )
    jobs = by_name(outcome)
    assert [jobs[name].ended_ms for name in "abc"] == [100_000, 210_000, 150_000]
    assert [jobs[name].waited_ms for name in "abc"] == [0, 0, 60_000]
    assert outcome.completion().mean_ms == (100_000 + 200_000 + 110_000) // 3
    assert (outcome.completion().p50_ms, outcome.completion().p99_ms) == (110_000, 200_000)
    assert outcome.span_ms == 210_000
    held = {each.chip: each.busy_milli_ms for each in outcome.utilisation()}
    assert held["L4-24GB"] == 1_000 * (100_000 + 200_000 + 50_000)


def test_the_first_job_is_instant_zero_whatever_the_clock_of_the_trace():
    late = play(TWO_L4, "submit_s,duration_s,chip\n5000.5,60,L4\n5010.5,60,L4\n")
    assert [job.submit_ms for job in late.jobs] == [0, 10_000]


def test_cost_by_hand():
    # 1.20 a device-hour: two devices for half an hour; spot at half of it for one hour.
    outcome = play(
        TWO_L4,
        "submit_s,duration_s,name,chip,devices,tier\n"
        "0,1800,a,L4,2,on-demand\n1800,3600,b,L4,1,spot\n",
    )
    assert outcome.cost_nano(Tier.ON_DEMAND) == 1_200_000_000
    assert outcome.cost_nano(Tier.SPOT) == 600_000_000
    assert outcome.cost_nano() == 1_800_000_000


def test_cores_cost_what_the_catalogue_says_relative_to_an_a100():
    # cpu-x86-64 costs 2 % of an A100-80GB, which stands at 1.50: 0.03 a core-hour.
    outcome = play(TWO_L4, "submit_s,duration_s,cpu\n0,7200,4\n")
    assert outcome.cost_nano() == 4 * 2 * 30_000_000


def test_energy_by_hand():
    # Idle: 100 W node + 2 x 20 W + 8 cores x 1 W = 148 W. One device and 4 cores held for the
    # whole hour: 60 W and 8 W more. Through a PUE of 2 that is 432 Wh.
    outcome = play(TWO_L4, "submit_s,duration_s,chip,cpu\n0,3600,L4,4\n")
    (used,) = outcome.energy
    assert used.machines_uj == 216 * 3_600 * 1_000_000
    assert used.facility_uj == 2 * used.machines_uj
    assert used.price_nano == 432 * 100_000_000 // 1_000
    assert used.carbon_mg == 432 * 500_000 // 1_000


def test_energy_follows_the_hours_of_the_day():
    prices = ["0"] * 24
    prices[1] = "1"
    listed = ", ".join(f'"{each}"' for each in prices)
    text = TWO_L4.replace('"0.10"', f"[{listed}]")
    # From 00:30 on nothing differs but the price: only 01:00 to 01:30 is paid.
    outcome = play(text, "submit_s,duration_s,chip,cpu\n0,5400,L4,4\n")
    assert outcome.energy[0].price_nano == 216 * 1_000_000_000 // 1_000


def test_spot_prices_are_followed_through_a_lease():
    outcome = play(
        TWO_L4,
        "submit_s,duration_s,chip,tier\n0,5400,L4,spot\n",
        rules=Rules(spot=None),
    )
    assert outcome.cost_nano() == 900_000_000
    steps = ((0, 1_000_000_000), (HOUR_MS, 3_000_000_000))
    spot = SpotPrices({"l4": steps}, outcome.cluster.catalogue)
    outcome = play(
        TWO_L4, "submit_s,duration_s,chip,tier\n0,5400,L4,spot\n", rules=Rules(spot=spot)
    )
    assert outcome.cost_nano() == 1_000_000_000 + 1_500_000_000


def test_what_can_never_fit_is_rejected_with_its_reason():
    outcome = play(
        TWO_L4,
        "submit_s,duration_s,name,chip,devices,cpu\n"
        "0,60,wide,L4,3,0\n0,60,other,H100,1,0\n0,60,cores,,0,9\n0,60,good,L4,1,0\n",
    )
    jobs = by_name(outcome)
    assert {name: job.state for name, job in jobs.items()} == {
        "wide": "rejected", "other": "rejected", "cores": "rejected", "good": "finished",
    }  # fmt: skip
    assert jobs["wide"].reason.code == "TOO_FEW_DEVICES"
    assert jobs["other"].reason.code == "NO_SUCH_CHIP"
    assert jobs["cores"].reason.code == "NOT_ENOUGH_CPU"
    assert all(job.reason.message for job in jobs.values() if job.state == "rejected")


def test_a_run_may_be_stopped_and_says_what_still_ran_and_waited():
    trace = "submit_s,duration_s,name,chip,devices\n0,100,a,L4,2\n10,100,b,L4,1\n90,5,c,L4,1\n"
    outcome = play(TWO_L4, trace, rules=Rules(until_ms=50_000))
    assert [job.state for job in outcome.jobs] == ["running", "waiting"]
    assert outcome.unsent == 1
    assert by_name(outcome)["b"].waited_ms == 40_000
    assert by_name(outcome)["b"].reason.code == "CHIP_BUSY"
    assert outcome.cost_nano() == 2 * 1_200_000_000 * 50 // 3_600
    assert outcome.span_ms == 50_000


def test_priority_goes_first_and_fifo_does_not_care():
    trace = (
        "submit_s,duration_s,name,chip,devices,priority\n"
        "0,100,a,L4,2,50\n10,10,low,L4,2,10\n20,10,high,L4,2,90\n"
    )
    ended = {job.name: job.ended_ms for job in play(TWO_L4, trace).jobs}
    assert (ended["high"], ended["low"]) == (110_000, 120_000)
    ended = {job.name: job.ended_ms for job in play(TWO_L4, trace, "fifo").jobs}
    assert (ended["low"], ended["high"]) == (110_000, 120_000)


def test_in_fifo_the_head_blocks_those_behind_it():
    trace = (
        "submit_s,duration_s,name,chip,devices\n0,100,a,L4,1\n10,10,wide,L4,2\n20,10,small,L4,1\n"
    )
    assert by_name(play(TWO_L4, trace))["small"].waited_ms == 0
    assert by_name(play(TWO_L4, trace, "fifo"))["small"].waited_ms == 90_000


def test_a_gang_starts_whole_and_ends_whole():
    text = TWO_L4.replace("count = 1", "count = 2")
    outcome = play(
        text,
        "submit_s,duration_s,name,chip,devices,tasks\n0,100,one,L4,1,1\n0,50,gang,L4,2,2\n",
    )
    jobs = by_name(outcome)
    assert jobs["gang"].started_ms == 100_000
    assert jobs["gang"].device_milli_ms == 4 * 1_000 * 50_000
    assert sum(lease.job == "gang" for lease in outcome.leases) == 2
    assert not recount(outcome)


def test_durations_scale_from_a_reference_chip():
    # By the catalogue an H100 trains faster than an L4: its own figures say by how much.
    text = TWO_L4.replace('chip = "L4-24GB"', 'chip = "H100-80GB"', 1)
    trace = "submit_s,duration_s,chip\n0,1000,H100\n"
    same = play(text, trace, rules=Rules())
    scaled = play(text, trace, rules=Rules(reference="A100-80GB"))
    h100 = same.cluster.chip("H100-80GB").throughput
    assert same.completion().mean_ms == 1_000_000
    assert scaled.completion().mean_ms == 1_000_000 * 100 // h100


class Pushing(Production):
    """Puts whatever runs out as soon as a job of priority 90 waits."""

    def decide(self, snapshot, leases):
        verdict = dataclasses.replace(super().decide(snapshot, leases), evicted=())
        if any(task.priority == 90 and task.job in verdict.reasons for task in snapshot.pending):
            evicted = {lease.job: None for lease in leases(worked=True)}
            return dataclasses.replace(verdict, evicted=tuple(evicted))
        return verdict


def test_an_evicted_job_comes_back_with_what_its_checkpoints_kept():
    trace = (
        "submit_s,duration_s,name,chip,devices,priority\n"
        "0,1000,long,L4,2,50\n250,100,urgent,L4,2,90\n"
    )
    rules = Rules(checkpoint_ms=100_000, restart_ms=5_000, notice_ms=10_000)
    outcome = play(TWO_L4, trace, Pushing, rules)
    jobs = by_name(outcome)
    # Told at 250 s, gone at 260 s with 200 s of work kept; urgent runs 260-360 s; then 5 s of
    # restart and the 800 s that are left.
    assert jobs["urgent"].started_ms == 260_000
    assert jobs["urgent"].ended_ms == 360_000
    assert jobs["long"].ended_ms == 360_000 + 5_000 + 800_000
    assert jobs["long"].evictions == outcome.evictions() == 1
    assert jobs["long"].waited_ms == 100_000
    assert [lease.attempt for lease in outcome.leases if lease.job == "long"] == [1, 2]
    assert not recount(outcome)


def test_on_demand_work_takes_the_place_of_spot_work_with_notice():
    trace = (
        "submit_s,duration_s,name,chip,devices,tier\n"
        "0,7200,cheap,L4,2,spot\n1800,600,dear,L4,2,on-demand\n"
    )
    jobs = by_name(play(TWO_L4, trace, rules=Rules(checkpoint_ms=900_000, restart_ms=30_000)))
    # Told at 1,800 s, gone 30 s later with 1,800 s of work saved.
    assert (jobs["dear"].started_ms, jobs["dear"].ended_ms) == (1_830_000, 2_430_000)
    assert jobs["cheap"].evictions == 1
    assert jobs["cheap"].ended_ms == 2_430_000 + 30_000 + 5_400_000
    # Both leases of the evicted job are paid for, at half of 1.20 an hour and device.
    assert jobs["cheap"].cost_nano == 2 * 600_000_000 * (1_830 + 5_430) // 3_600


def test_work_that_has_just_begun_is_left_its_ten_minutes():
    trace = (
        "submit_s,duration_s,name,chip,devices,tier\n"
        "0,7200,cheap,L4,2,spot\n60,600,dear,L4,2,on-demand\n"
    )
    jobs = by_name(play(TWO_L4, trace))
    assert jobs["dear"].started_ms == 600_000 + 30_000


def test_decisions_may_rest_while_jobs_wait():
    trace = "submit_s,duration_s,name,chip,devices\n0,100,a,L4,2\n10,10,b,L4,2\n105,10,c,L4,2\n"
    outcome = play(TWO_L4, trace, rules=Rules(rest_ms=60_000))
    jobs = by_name(outcome)
    # Decided at 10 s, where b waits, and when a has ended; c is refused at 105 s, and b's end at
    # 110 s falls into the rest.
    assert jobs["b"].started_ms == 100_000
    assert jobs["c"].started_ms == 165_000
    late = play(TWO_L4, trace, rules=Rules(rest_ms=200_000))
    assert by_name(late)["b"].started_ms == 210_000
    assert not recount(late)


def test_a_job_sure_to_end_in_time_starts_before_the_one_that_waits_for_more():
    # wide has to wait for a; small would hold one device beyond that unless it says how long.
    head = "submit_s,duration_s,name,chip,devices,max_duration_s\n"
    rows = "0,7200,a,L4,1,7200\n60,600,wide,L4,2,600\n120,{0},small,L4,1,{1}\n"
    short = by_name(play(TWO_L4, head + rows.format(600, 600)))
    assert short["small"].started_ms == 120_000
    assert short["wide"].started_ms == 7_200_000
    unsaid = by_name(play(TWO_L4, head + rows.format(20_000, 0)))
    assert unsaid["wide"].started_ms == 7_200_000
    assert unsaid["small"].started_ms == 7_800_000


def test_a_sites_power_cap_holds():
    capped = TWO_L4.replace("pue = 2", "pue = 2\ncap_watts = {}")
    trace = "submit_s,duration_s,name,chip\n0,100,a,L4\n0,100,b,L4\n"
    one_at_a_time = play(capped.format(300), trace)
    assert [job.ended_ms for job in one_at_a_time.jobs] == [100_000, 200_000]
    assert play(capped.format(10_000), trace).span_ms == 100_000
    none = play(capped.format(100), trace)
    assert {job.reason.code for job in none.jobs} == {"POWER_CAPPED"}


def test_a_tenant_that_used_little_lately_goes_first():
    head = "submit_s,duration_s,name,chip,devices,tenant\n"
    rows = "0,3600,big,L4,2,greedy\n60,600,more,L4,2,greedy\n120,600,first,L4,2,modest\n"
    jobs = by_name(play(TWO_L4, head + rows))
    assert jobs["first"].started_ms == 3_600_000
    assert jobs["more"].started_ms == 4_200_000


def test_jobs_may_state_a_percentage_of_their_time():
    outcome = play(TWO_L4, "submit_s,duration_s,chip\n0,100,L4\n", stated=150)
    assert outcome.trace.arrivals[0].longest_ms == 150_000


CLUSTER = """
[[nodes]]
name = "v100"
count = 3
chip = "V100-16GB"
devices = 8
cpu = 64
memory = "256GB"

[[nodes]]
name = "t4"
count = 4
chip = "T4"
devices = 4
cpu = 16
memory = "64GB"

[[nodes]]
name = "cpu"
count = 2
cpu = 32
memory = "128GB"
"""


def made_up(seed, jobs=120):
    """A busy trace: some jobs can never fit, some are gangs."""
    chance = random.Random(seed)
    lines = ["submit_s,duration_s,tasks,chip,devices,cpu,memory,priority,tier,tenant"]
    at = 0
    for _ in range(jobs):
        at += chance.choice((0, 0, 5, 30))
        devices = chance.choice((0, 1, 1, 2, 4, 8, 16))
        chip = chance.choice(("V100", "T4", "V100|T4")) if devices else ""
        line = (
            at, chance.choice((0, 20, 300, 1500)), chance.choice((1, 1, 1, 2)), chip, devices,
            chance.choice((0, 0.5, 4, 40)), f"{chance.choice((1, 8, 60))}GB",
            chance.choice((10, 50, 90)), chance.choice(("on-demand", "spot", "reserved")),
            chance.choice(("a", "b")),
        )  # fmt: skip
        lines.append(",".join(map(str, line)))
    return "\n".join(lines)


@pytest.mark.parametrize("policy", ["gridlease", "fifo"])
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("until_ms", [0, 900_000])
def test_of_every_run(policy, seed, until_ms):
    outcome = play(CLUSTER, made_up(seed), policy, Rules(until_ms=until_ms))
    # Nothing is lost: each job is in one state, and has a reason where it did not finish.
    assert sum(outcome.count(state) for state in STATES) == len(outcome.jobs)
    assert len(outcome.jobs) + outcome.unsent == 120
    for job in outcome.jobs:
        if job.state in ("waiting", "rejected"):
            assert job.reason.code, job
        if job.state == "finished":
            assert 0 <= job.submit_ms <= job.started_ms < job.ended_ms <= outcome.span_ms
    # Nothing is held twice, at any instant, and the leases add up to what was reported.
    assert not recount(outcome)
    assert sum(lease.cost_nano for lease in outcome.leases) == outcome.cost_nano()
    held = sum(
        1_000 * len(x.allocation.device_ids) * (x.until_ms - x.from_ms) for x in outcome.leases
    )
    devices = [each for each in outcome.utilisation() if not each.chip.startswith("cpu")]
    assert held == sum(each.busy_milli_ms for each in devices)
    assert held == sum(job.device_milli_ms for job in outcome.jobs)
    assert all(0 <= each.percent <= 100 for each in outcome.utilisation())
    if not until_ms:
        assert outcome.count("running") == outcome.count("waiting") == 0


def test_the_same_input_gives_the_same_run():
    one, two = (play(CLUSTER, made_up(7), sample=60, seed=3) for _ in range(2))
    assert dataclasses.asdict(one) == dataclasses.asdict(two)
    other = play(CLUSTER, made_up(7), sample=60, seed=4)
    assert [job.name for job in one.jobs] != [job.name for job in other.jobs]


def test_a_denser_load_waits_longer():
    calm, dense = (play(CLUSTER, made_up(1), load=load) for load in (50, 400))
    assert calm.waiting().mean_ms < dense.waiting().mean_ms


def test_progress_is_told_and_reaches_the_end():
    cluster = clusterfile.parse(CLUSTER)
    told = []
    Replay(cluster, read_trace(made_up(2), cluster), Production, Rules()).run(told.append)
    assert told
    assert all(each.total == 120 for each in told)
    assert [each.ended for each in told] == sorted(each.ended for each in told)
