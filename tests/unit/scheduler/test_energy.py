"""What a placement draws and costs, the caps, the better hour, and who may sleep."""

import pytest
from gridlease_scheduler.domain.electricity.energy import (
    HOUR_MS,
    Capped,
    Hour,
    NodePower,
    Power,
    Site,
    StartNow,
    WaitUntil,
    added_mw,
    allows,
    committed_mw,
    forecast_of,
    hourly,
    power_of,
    window,
)
from gridlease_scheduler.domain.electricity.idle import Host, SleepPolicy, to_sleep
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.unit.scheduler.fleet import CATALOGUE

W = 1_000
CENT = 10_000_000  # nano
FLAT = (10 * CENT,) * 24
DAY = (400,) * 8 + (100,) * 8 + (400,) * 8  # clean from 08:00 to 16:00 UTC
SITE = Site("home", 1_200, FLAT, DAY, cap_mw=2_400 * W)
GPU = Power(55 * W, 400 * W, CATALOGUE.find("A100-80GB").source)


def node(**changes):
    fields = {
        "node_id": "n",
        "rack": "r",
        "site": "home",
        "host": Power(100 * W, 300 * W),
        "devices": {f"gpu-{index}": GPU for index in range(4)},
    }
    return NodePower(**(fields | changes))


# -- what it draws --------------------------------------------------------------------------------


def test_power_is_linear_between_idle_and_peak():
    assert [GPU.at(use) for use in (0, 500, 1_000)] == [55 * W, 227_500, 400 * W]
    assert power_of(CATALOGUE.find("A100-80GB")) == GPU


def test_a_node_draws_what_its_meter_says_else_what_the_model_says():
    assert node().now_mw() == 320 * W
    assert node().now_mw(1_000) == 1_900 * W
    assert node(measured_mw=777).now_mw() == 777
    assert node(asleep=True).now_mw() == 0


def test_a_placement_adds_what_is_above_idle():
    assert added_mw(node(), ["gpu-0", "gpu-1"]) == 690 * W
    assert added_mw(node(), ["gpu-0"], host_permille=250) == 395 * W
    assert added_mw(node(), ["gpu-0"], host_permille=250, use_permille=500) == 197_500
    assert added_mw(node(), []) == 0


def test_a_placement_on_a_sleeping_node_also_wakes_it():
    assert added_mw(node(asleep=True), ["gpu-0"]) == 345 * W + 320 * W


def test_what_is_committed_is_idle_and_every_peak_that_leases_may_reach():
    assert committed_mw(node(), []) == 320 * W
    assert committed_mw(node(), ["gpu-0", "gpu-3"], 1_000) == 320 * W + 690 * W + 200 * W
    assert committed_mw(node(asleep=True), []) == 0


def test_an_hour_costs_watts_times_pue_times_price():
    # 0.7 kW x 1.2 = 0.84 kWh: 0.084 at 0.10, and 336 g at 400 g.
    added = hourly(SITE, 700 * W, 0)
    assert added.cost_nano_per_hour == 84_000_000
    assert added.milligrams_per_hour == 336_000
    assert hourly(SITE, 700 * W, 12).milligrams_per_hour == 84_000
    assert hourly(SITE, 1, 0).cost_nano_per_hour == 120


@pytest.mark.parametrize("bad", [{"pue_milli": 999}, {"grams_per_kwh": (1,) * 23}])
def test_a_site_has_24_hours_and_no_miraculous_pue(bad):
    fields = {"name": "x", "pue_milli": 1_000, "price_nano_per_kwh": FLAT, "grams_per_kwh": DAY}
    with pytest.raises(AssertionError):
        Site(**(fields | bad))


# -- caps -----------------------------------------------------------------------------------------


def test_the_sites_cap_is_at_its_meter():
    assert allows(SITE, 1_600 * W, 400 * W) is None  # 2,000 W x 1.2 = 2,400 W
    capped = allows(SITE, 1_600 * W, 400 * W + 1)
    assert isinstance(capped, Capped)
    assert (capped.scope, capped.name) == ("site", "home")
    assert capped.would_mw == 2_400 * W + 2
    assert "2400 W" in capped.message


def test_the_racks_cap_is_at_its_feed():
    assert allows(SITE, 0, 500 * W, "r1", 500 * W, 1_000 * W) is None
    capped = allows(SITE, 0, 501 * W, "r1", 500 * W, 1_000 * W)
    assert (capped.scope, capped.name, capped.would_mw) == ("rack", "r1", 1_001 * W)


def test_without_caps_all_is_allowed():
    free = Site("free", 1_500, FLAT, DAY)
    assert allows(free, 10**12, 10**12) is None


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 900 * W)), max_size=30),
    st.integers(1_000, 2_000),
    st.integers(0, 5_000 * W),
    st.integers(0, 2_000 * W),
)
def test_no_sequence_of_placements_exceeds_a_cap(asks, pue_milli, site_cap, rack_cap):
    site = Site("s", pue_milli, FLAT, DAY, site_cap)
    racks = dict.fromkeys(range(4), 0)
    for rack, adding in asks:
        total = sum(racks.values())
        if allows(site, total, adding, str(rack), racks[rack], rack_cap) is None:
            racks[rack] += adding
        else:
            over_rack = racks[rack] + adding > rack_cap
            assert over_rack or (total + adding) * pue_milli > site_cap * 1_000
        assert racks[rack] <= rack_cap
        assert sum(racks.values()) * pue_milli <= site_cap * 1_000


# -- the better hour ------------------------------------------------------------------------------

NIGHT = 4 * HOUR_MS  # 04:00 UTC of day 0


def clean(now_ms=NIGHT, run_h=2, deadline_h=24, **changes):
    forecast = changes.pop("forecast", forecast_of(SITE, now_ms, 48))
    deadline_ms = now_ms + deadline_h * HOUR_MS
    return window(now_ms, run_h * HOUR_MS, deadline_ms, forecast, clean=True, **changes)


def test_a_deferrable_job_waits_for_the_clean_hours():
    found = clean()
    assert isinstance(found, WaitUntil)
    assert found.start_ms == 8 * HOUR_MS
    assert found.saving_permille == 750
    assert found.reason == "WAITS_FOR_CLEAN_HOUR"
    assert "75.0 %" in found.message


def test_it_starts_at_once_in_a_clean_hour():
    found = clean(now_ms=9 * HOUR_MS)
    assert found == StartNow("CLEAN_ENOUGH", found.message)


def test_its_deadline_goes_before_clean_air():
    assert clean(deadline_h=2).reason == "DEADLINE"
    assert clean(deadline_h=1).reason == "DEADLINE"
    # With an hour and a half to spare it never sees 08:00, and waits for nothing.
    assert clean(run_h=1, deadline_h=2).reason == "CLEAN_ENOUGH"
    # It ends at 10:00 at the latest, so it starts as late as it can.
    late = clean(run_h=4, deadline_h=6)
    assert late.start_ms == 6 * HOUR_MS


def test_a_small_saving_is_not_waited_for():
    forecast = (Hour(0, 100, 100), Hour(HOUR_MS, 100, 96), Hour(2 * HOUR_MS, 100, 90))
    found = clean(now_ms=0, run_h=1, forecast=forecast, gain_permille=150)
    assert isinstance(found, StartNow)
    assert clean(now_ms=0, run_h=1, forecast=forecast).start_ms == 2 * HOUR_MS


def test_a_saving_of_just_so_much_is_waited_for():
    forecast = (Hour(0, 0, 100), Hour(HOUR_MS, 0, 90))
    assert isinstance(clean(now_ms=0, run_h=1, forecast=forecast, gain_permille=100), WaitUntil)
    assert isinstance(clean(now_ms=0, run_h=1, forecast=forecast, gain_permille=101), StartNow)


def test_a_forecast_is_of_the_hours_of_the_day():
    prices = tuple(range(24))
    site = Site("s", 1_000, prices, tuple(reversed(prices)))
    made = forecast_of(site, 26 * HOUR_MS + 5, 24)
    assert made[0] == Hour(26 * HOUR_MS, 2, 21)
    assert made[23] == Hour(49 * HOUR_MS, 1, 22)


def test_without_a_forecast_nothing_is_waited_for():
    assert clean(forecast=()).reason == "NO_FORECAST"
    gap = (Hour(0, 9, 9), Hour(2 * HOUR_MS, 1, 1))
    assert clean(now_ms=0, forecast=gap).reason == "NO_FORECAST"


def test_price_and_carbon_may_disagree():
    forecast = (Hour(0, 100, 10), Hour(HOUR_MS, 10, 100))
    deadline = 2 * HOUR_MS
    cheap = window(0, HOUR_MS, deadline, forecast, clean=False)
    assert (cheap.start_ms, cheap.reason) == (HOUR_MS, "WAITS_FOR_CHEAP_HOUR")
    assert isinstance(window(0, HOUR_MS, deadline, forecast, clean=True), StartNow)


HOURS = st.lists(st.integers(0, 9), min_size=1, max_size=6)


@given(HOURS, st.integers(0, 59), st.integers(1, 150), st.integers(0, 400))
def test_no_start_by_the_minute_is_better(grams, now_min, run_min, room_min):
    minute = HOUR_MS // 60
    forecast = tuple(Hour(at * HOUR_MS, 0, value) for at, value in enumerate(grams))
    by_minute = [value for value in grams for _ in range(60)]
    deadline_min = now_min + run_min + room_min
    assume(now_min + run_min <= len(by_minute))
    found = window(
        now_min * minute,
        run_min * minute,
        deadline_min * minute,
        forecast,
        clean=True,
        gain_permille=0,
    )
    start_min = now_min if isinstance(found, StartNow) else found.start_ms // minute
    last = min(deadline_min, len(by_minute)) - run_min
    best = min(sum(by_minute[at : at + run_min]) for at in range(now_min, last + 1))
    mine = sum(by_minute[start_min : start_min + run_min])
    now = sum(by_minute[now_min : now_min + run_min])
    assert start_min + run_min <= max(deadline_min, now_min + run_min)
    assert mine == best or (mine == now and (now - best) * 1_000 < now)


# -- who may sleep --------------------------------------------------------------------------------

MINUTE = 60_000


def host(name, *, kind="a100", since=0, idle=320 * W, wake=90_000):
    return Host(name, kind, since, idle, wake)


def sleepers(*hosts, now=60 * MINUTE, wanted=None, **policy):
    return [it.node_id for it in to_sleep(hosts, now, SleepPolicy(**policy), wanted)]


def test_the_thirstiest_sleep_and_a_reserve_stays():
    hosts = [host("a"), host("b", idle=500 * W), host("c", idle=400 * W), host("t", kind="t4")]
    assert sleepers(*hosts) == ["b", "c"]
    assert sleepers(*hosts, reserve=2) == ["b"]
    assert sleepers(*hosts, reserve=0) == ["b", "c", "a", "t"]


def test_who_was_just_emptied_stays_awake():
    hosts = [host("a"), host("b", since=50 * MINUTE), host("c", since=44 * MINUTE)]
    assert sleepers(*hosts, reserve=0) == ["a", "c"]
    assert sleepers(*hosts, reserve=0, empty_ms=5 * MINUTE) == ["a", "b", "c"]


def test_who_cannot_sleep_is_the_reserve():
    assert sleepers(host("a"), host("b", wake=0)) == ["a"]


def test_who_cannot_sleep_never_does_and_who_is_empty_just_long_enough_does():
    assert sleepers(host("a", wake=0), reserve=0) == []
    assert sleepers(host("a", since=45 * MINUTE), reserve=0) == ["a"]
    assert sleepers(host("a", since=45 * MINUTE + 1), reserve=0) == []


def test_what_waiting_jobs_want_stays_awake():
    hosts = [host("a"), host("b"), host("c")]
    assert sleepers(*hosts, wanted={"a100": 1}) == ["c"]
    assert sleepers(*hosts, wanted={"a100": 5}) == []


@given(
    st.lists(
        st.builds(
            Host,
            st.uuids().map(str),
            st.sampled_from("ab"),
            st.integers(0, 60 * MINUTE),
            st.integers(0, 9),
            st.integers(0, 1),
        ),
        max_size=12,
    ),
    st.integers(0, 3),
)
def test_a_reserve_of_each_kind_always_stays_awake(hosts, reserve):
    gone = set(sleepers(*hosts, reserve=reserve))
    for kind in "ab":
        mine = [it for it in hosts if it.kind == kind]
        left = [it for it in mine if it.node_id not in gone]
        assert len(left) >= min(reserve, len(mine))
