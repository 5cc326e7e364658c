"""Power in the planner: caps, clean and cheap hours, and the cheapest site among equals."""

from __future__ import annotations

from dataclasses import replace

import pytest
from gridlease_scheduler.adapters import catalogue
from gridlease_scheduler.domain.chips import AcceleratorNeed
from gridlease_scheduler.domain.job import Allocation, Needs
from gridlease_scheduler.domain.node import Device, Node, with_held
from gridlease_scheduler.domain.plan import Decision, Placed, Waiting
from gridlease_scheduler.domain.ruling import rule
from gridlease_scheduler.domain.snapshot import Pending, Site, Snapshot
from hypothesis import given, settings
from hypothesis import strategies as st

BOOK = catalogue.load()
GIB, HOUR_MS = 2**30, 3_600_000
T4 = BOOK.find("T4-16GB")
assert T4 is not None


def _node(name: str, site: str = "s", rack: str = "r", devices: int = 4) -> Node:
    return Node(
        name, site, "cpu-x86-64", 8_000, 64 * GIB, 10**12,
        tuple(Device(f"gpu-{i}", "T4-16GB", "nvidia", 16 * GIB) for i in range(devices)), rack=rack,
    )  # fmt: skip


def _job(number: int, count: int = 1, **more: object) -> Pending:
    needs = Needs(1_000, GIB, GIB, AcceleratorNeed(("T4",), count=count))
    named = {key: more.pop(key) for key in ("deferrable_ms", "low_carbon") if key in more}
    needs = replace(needs, **named)
    return Pending(f"j{number}", "t", "p", 1, 0, number, 0, 0, needs, **more)


def _rule(
    nodes: list[Node], jobs: list[Pending], *sites: Site, now_ms: int = 0
) -> dict[str, Decision]:
    found = rule(Snapshot(tuple(nodes), tuple(jobs), BOOK, sites=sites, now_ms=now_ms))
    return {decision.task.job: decision for decision in found.decisions}


def _peak_watts(used_devices: int, used_cores: int, devices: int = 4) -> int:
    """By hand: idle of all, and what is given away at its peak."""
    assert T4 is not None
    idle = devices * T4.idle_watts + 8 * 2
    return idle + used_devices * (T4.peak_watts - T4.idle_watts) + used_cores * (8 - 2)


def test_a_cap_of_the_site_is_a_hard_limit_and_named() -> None:
    site = Site("s", pue_milli=1_500, cap_watts=_peak_watts(2, 2) * 3 // 2)
    found = _rule([_node("n")], [_job(1), _job(2), _job(3)], site)
    assert isinstance(found["j1"], Placed)
    assert isinstance(found["j2"], Placed)
    third = found["j3"]
    assert isinstance(third, Waiting)
    assert third.reason.code == "POWER_CAPPED"
    assert third.reason.evidence["cap_watts"] == str(site.cap_watts)


def test_what_runs_counts_and_a_rack_has_a_cap_of_its_own() -> None:
    held = Allocation(1_000, GIB, GIB, ("gpu-0", "gpu-1"), "T4-16GB", 2_000)
    busy = with_held(_node("busy", rack="a"), held)
    site = Site("s", rack_cap_watts=(("a", _peak_watts(2, 1)),))
    found = _rule([busy, _node("free", rack="b")], [_job(1, 2), _job(2, 2), _job(3, 2)], site)
    placed = [x for x in found.values() if isinstance(x, Placed)]
    assert len(placed) == 2
    assert {x.node_id for x in placed} == {"free"}
    waits = next(x for x in found.values() if isinstance(x, Waiting))
    assert waits.reason.code == "POWER_CAPPED"


def test_a_gang_counts_as_a_whole() -> None:
    site = Site("s", cap_watts=_peak_watts(3, 3) * 1)
    jobs = [_job(1, tasks=4, tasks_max=4), _job(2, tasks=3, tasks_max=3)]
    found = _rule([_node("n")], jobs, site)
    assert isinstance(found["j1"], Waiting)
    assert isinstance(found["j2"], Placed)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 3), st.integers(1, 2)), max_size=12),
    st.integers(100, 900),
    st.integers(1_000, 1_600),
)
def test_no_sequence_of_jobs_breaks_a_cap(
    asked: list[tuple[int, int]], cap_watts: int, pue: int
) -> None:
    nodes = [_node("a"), _node("b")]
    jobs = [
        _job(number, count, tasks=tasks, tasks_max=tasks)
        for number, (count, tasks) in enumerate(asked)
    ]
    found = _rule(nodes, jobs, Site("s", pue_milli=pue, cap_watts=cap_watts))
    members = [m for x in found.values() if isinstance(x, Placed) for m in x.members]
    devices = sum(len(m.allocation.device_ids) for m in members)
    if members:
        assert _peak_watts(devices, len(members), devices=8) + 16 <= cap_watts * 1_000 / pue + 1


def _dips_at(hour: int, low: int = 100, high: int = 1_000) -> tuple[int, ...]:
    return tuple(low if each == hour else high for each in range(24))


@pytest.mark.parametrize(
    ("low_carbon", "code"), [(False, "WAITS_FOR_CHEAP_HOUR"), (True, "WAITS_FOR_CLEAN_HOUR")]
)
def test_a_deferrable_job_waits_for_its_hour_and_then_runs(low_carbon: bool, code: str) -> None:
    job = _job(1, deferrable_ms=12 * HOUR_MS, low_carbon=low_carbon, longest_ms=HOUR_MS)
    hours = _dips_at(5)
    site = Site("s", carbon_mg_per_kwh=hours) if low_carbon else Site("s", price_nano_per_kwh=hours)
    waits = _rule([_node("n")], [job], site)["j1"]
    assert isinstance(waits, Waiting)
    assert waits.reason.code == code
    assert waits.reason.evidence["earliest_start_ms"] == str(5 * HOUR_MS)
    assert isinstance(_rule([_node("n")], [job], site, now_ms=5 * HOUR_MS)["j1"], Placed)
    late = replace(job, submitted_ms=-12 * HOUR_MS)
    assert isinstance(_rule([_node("n")], [late], site)["j1"], Placed), "its patience is over"


def test_a_job_that_may_not_wait_or_whose_length_is_unknown_starts() -> None:
    site = Site("s", price_nano_per_kwh=_dips_at(5))
    for job in (_job(1, longest_ms=HOUR_MS), _job(1, deferrable_ms=12 * HOUR_MS)):
        assert isinstance(_rule([_node("n")], [job], site)["j1"], Placed)


def test_among_equals_the_site_of_cheap_or_clean_energy_is_taken() -> None:
    nodes = [_node("a", "dear"), _node("b", "cheap")]
    sites = (
        Site("dear", 1_100, price_nano_per_kwh=(300_000_000,), carbon_mg_per_kwh=(20_000,)),
        Site("cheap", 1_100, price_nano_per_kwh=(100_000_000,), carbon_mg_per_kwh=(500_000,)),
    )
    found = _rule(nodes, [_job(1), _job(2, low_carbon=True)], *sites)
    assert {job: x.node_id for job, x in found.items() if isinstance(x, Placed)} == {
        "j1": "b", "j2": "a"
    }  # fmt: skip
