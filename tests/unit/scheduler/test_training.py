"""What the slow path does about elastic jobs, from what their tasks tell."""

from dataclasses import replace

from gridlease_scheduler.domain.order.patience import Patience, lessened
from gridlease_scheduler.domain.sizing.training import Diary, TrainingRules, resizes
from gridlease_scheduler.domain.snapshot import Quota

from tests.unit.scheduler.flexing import NOW, leases, look, told, trains
from tests.unit.scheduler.standing import A100, HOUR, waits

RULES = TrainingRules()


def decided(jobs, scene, diary=None):
    found, diary = resizes(jobs, scene, diary or Diary(), RULES)
    return {x.job: x.tasks for x in found}, diary


def test_a_job_grows_into_what_is_free():
    scene = look(running=leases("j", 1))
    found, _ = resizes([trains()], scene, Diary(), RULES)
    assert [(x.job, x.tasks, x.running, x.attempt) for x in found] == [("j", 4, True, 1)]
    assert found[0].reason.code == "RESIZED"
    assert found[0].reason.evidence == {"from": "1", "to": "4"}


def test_it_goes_on_growing_with_what_it_has_told_since():
    _, diary = decided([trains()], look(running=leases("j", 1)))
    found, _ = decided([trains(tasks=2)], look(running=leases("j", 2)), diary)
    assert found == {"j": 4}


def test_without_a_report_nothing_is_known_and_nothing_changes():
    scene = look(running=leases("j", 1))
    assert decided([trains(reports=())], scene)[0] == {}
    assert decided([trains(reports=(told(age_ms=HOUR),))], scene)[0] == {}
    assert decided([trains(reports=(told(step_s=0.0),))], scene)[0] == {}


def test_who_gains_nothing_by_a_larger_batch_stays():
    """Its gradient has no noise: twice the batch is worth no more than once."""
    scene = look(running=leases("j", 1))
    assert decided([trains(reports=(told(variance=0.0),))], scene)[0] == {}


def test_who_has_grown_for_nothing_gives_it_back():
    """Four devices exchange for so long that they do no more than one did."""
    _, diary = decided([trains()], look(running=leases("j", 1)))
    slow = told(batch=1_024, step_s=4.0, variance=0.0, squared=1.0)
    many = trains(tasks=4, reports=(slow,))
    for _ in range(20):
        found, diary = decided([many], look(running=leases("j", 4)), diary)
    assert found == {"j": 1}


def test_it_is_left_alone_until_it_has_settled():
    scene = look(running=leases("j", 1))
    assert decided([trains(ran_ms=RULES.settle_ms - 1)], scene)[0] == {}
    assert decided([trains(min_runtime_ms=2 * HOUR)], scene)[0] == {}


def test_what_was_never_saved_weighs_against_a_restart():
    unsaved = [replace(x, saved_ms=0, worked_ms=200 * HOUR) for x in leases("j", 1)]
    nearly = told(steps=990_000)
    assert decided([trains(reports=(nearly,))], look(running=unsaved))[0] == {}


def test_nobody_grows_on_a_chip_that_somebody_waits_for():
    """Also where that one came a moment ago, and is about to be placed."""
    late = waits("w", submitted_ms=NOW - 1_000)
    assert decided([trains()], look(running=leases("j", 1), waiting=(late,)))[0] == {}


def test_who_has_grown_gives_back_what_a_waiting_job_lacks():
    waiting = (waits("w", count=2, submitted_ms=NOW - 60_000),)
    scene = look(running=leases("j", 4), waiting=waiting)
    found, _ = decided([trains(tasks=4)], scene)
    assert found == {"j": 2}


def test_nobody_gives_back_more_than_down_to_its_least():
    waiting = (waits("w", count=4, submitted_ms=NOW - 60_000),)
    scene = look(running=leases("j", 4), waiting=waiting)
    found, _ = decided([trains(tasks=4, least=3)], scene)
    assert found.get("j", 4) >= 3


def test_growth_stops_at_the_quota():
    quotas = (Quota("projects/p", chip=A100, guaranteed_milli=1_000, limit_milli=1_000),)
    assert decided([trains()], look(running=leases("j", 1), quotas=quotas))[0] == {}


def test_two_jobs_do_not_get_the_same_free_device():
    running = [*leases("a", 1), *leases("b", 1, begin=1)]
    found, _ = decided([trains("a"), trains("b")], look(devices=3, running=running))
    assert list(found.values()) == [2]


def test_a_job_whose_lease_is_ending_is_not_looked_at():
    ending = [replace(x, closing=True) for x in leases("j", 1)]
    assert decided([trains()], look(running=ending))[0] == {}


def test_who_waits_in_vain_asks_for_half_as_many_and_not_again_soon():
    asks = trains(tasks=8, most=8, running=False, queued_ms=NOW - 60_000)
    found, patience = lessened([asks], Patience(NOW - 15_000), NOW)
    assert [(x.tasks, x.running) for x in found] == [(4, False)]
    assert patience.most(trains(tasks=4, most=8), 8, NOW) == 7
    assert patience.most(trains(tasks=4, most=8), 8, NOW + 2 * HOUR) == 8
    just_came = trains(tasks=8, most=8, running=False, queued_ms=NOW - 1_000)
    assert lessened([just_came], Patience(NOW - 15_000), NOW)[0] == ()
    least = trains(tasks=1, running=False)
    assert lessened([least], Patience(NOW - 15_000), NOW)[0] == ()


def test_what_was_waited_for_in_vain_is_not_given_again():
    patience = Patience(NOW - 15_000, {"j": (2, NOW + HOUR)})
    scene = look(running=leases("j", 1), patience=patience)
    assert decided([trains()], scene)[0] == {}
