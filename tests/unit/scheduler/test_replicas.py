"""What the slow path does about services, from what their replicas tell."""

from dataclasses import replace

from gridlease_scheduler.domain.order.patience import Patience
from gridlease_scheduler.domain.sizing.autoscale import Load
from gridlease_scheduler.domain.sizing.replicas import ReplicaRules, Watch, rescaled

from tests.unit.scheduler.flexing import NOW, leases, look, serves

RULES = ReplicaRules()


def decided(job, *, watch=None, devices=8, now_ms=NOW, rules=RULES):
    scene = look(devices=devices, running=leases(job.job, job.tasks))
    found, watch = rescaled([job], watch or Watch(), scene.spare, Patience(), now_ms, rules)
    return found, watch


def watched(job, in_flight, minutes):
    """As if it had been seen every 15 s for so long."""
    at = range(NOW - minutes * 60_000, NOW, 15_000)
    return Watch({job.job: tuple(Load(ms, in_flight) for ms in at)})


def test_more_requests_make_more_replicas():
    found, _ = decided(serves(in_flight=12))
    assert [(x.tasks, x.running) for x in found] == [(3, True)]
    reason = found[0].reason
    assert (reason.code, reason.evidence["because"]) == ("RESIZED", "LOAD_ABOVE_TARGET")


def test_without_room_for_what_is_added_nothing_restarts():
    assert decided(serves(in_flight=12), devices=1)[0] == ()
    [some] = decided(serves(in_flight=16), devices=2)[0]
    assert some.tasks == 2
    assert some.reason.evidence["to"] == "2"


def test_the_load_is_the_sum_over_replicas_and_known_only_if_all_tell():
    job = serves(tasks=3, in_flight=4)
    _, watch = decided(job)
    assert watch.loads["s"] == (Load(NOW, 12),)
    silent = replace(job, reports=job.reports[:2])
    assert decided(silent)[1].loads["s"] == ()
    assert decided(serves(in_flight=12, age_ms=60_000))[1].loads["s"] == ()


def test_who_has_just_begun_is_left_alone():
    assert decided(serves(in_flight=12, ran_ms=1_000))[0] == ()
    assert decided(serves(in_flight=12, ran_ms=0))[0] == ()


def test_who_is_idle_for_long_rests_with_a_word_of_its_own():
    job = serves(in_flight=0)
    [found] = decided(job, watch=watched(job, 0, 20))[0]
    assert (found.tasks, found.reason.code) == (0, "SCALED_TO_ZERO")
    assert "wake" in found.reason.hint
    assert decided(job, watch=watched(job, 0, 2))[0] == ()


def test_who_may_not_rest_keeps_its_least():
    job = serves(tasks=2, in_flight=0, least=1)
    [found] = decided(job, watch=watched(job, 0, 20))[0]
    assert found.tasks == 1


def test_who_waits_or_rests_is_not_scaled():
    assert decided(serves(in_flight=12, running=False))[0] == ()


def test_what_was_seen_long_ago_is_forgotten():
    job = serves()
    _, watch = decided(job, watch=watched(job, 0, 60))
    oldest = min(x.at_ms for x in watch.loads["s"])
    assert oldest >= NOW - RULES.scaling(job).window_ms
