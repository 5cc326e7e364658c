"""The benches of placement run, tiny, and tell what they promise; speed is not judged here."""

import importlib.util

import pytest

from .test_benches import outcome


def test_durable_placements_are_counted_by_what_is_on_record():
    found = outcome("placement", "--no-core", "--nodes", "1024", "--gangs", "300")
    results = found["results"]
    assert {"durable_per_s", "p50_ms", "p99_ms"} <= set(results)
    assert results["durable_per_s"] > 0
    assert (results["lost"], results["double"]) == (0, 0)
    assert set(results["cpu_ms_per_gang"]) == {
        "billing", "scheduler", "postgres", "nats", "bench",
    }  # fmt: skip


def test_a_new_leader_places_what_it_can_behind_a_queue():
    results = outcome("restart", "--nodes", "256", "--jobs", "300")["results"]
    assert results["leases"] == 1
    assert results["first_decision_s"] >= 0


@pytest.mark.skipif(importlib.util.find_spec("numpy") is None, reason="numpy is not installed")
def test_the_planner_and_the_masks_decide_alike():
    from . import placement_core as core

    order = core.liked(1)
    masks = core.Masks(512, order)
    naive = core.churn(masks.place, masks.end, 512, 400, 1)
    ours = core.churn(*core.planned(core.nodes(512)), 512, 400, 1)
    assert len(naive[1]) == len(ours[1])
    assert abs(naive[2] - ours[2]) < 0.1  # of the gangs placed: the same rules, other ties
    first, later, placed = core.backlog(256, 500)
    assert placed > 0
    assert first > 0
    assert later > 0
