"""Whatever a job's true speed is, its number of tasks comes to rest."""

from dataclasses import replace
from itertools import pairwise

from gridlease_scheduler.domain.sizing.training import Diary, TrainingRules, resizes
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.scheduler.flexing import NOW, leases, look, told, trains

_PASSES = 30


@settings(max_examples=40, deadline=None)
@given(
    compute_ms=st.integers(1, 400),
    fixed_ms=st.integers(1, 400),
    sync_ms=st.integers(0, 2_000),
    variance=st.floats(0.0, 1e7),
    noise=st.lists(st.floats(0.95, 1.05), min_size=_PASSES, max_size=_PASSES),
)
def test_a_job_alone_does_not_flap(compute_ms, fixed_ms, sync_ms, variance, noise):
    tasks, diary, sizes = 1, Diary(), [1]
    for number, shake in enumerate(noise):
        batch = 256 * tasks  # it keeps each device as busy as before
        exchange_ms = sync_ms * (tasks > 1)
        step_s = (compute_ms + fixed_ms + exchange_ms) / 1e3 * shake
        report = told(batch, step_s, variance=variance, steps=1_000 * number)
        job = trains(tasks=tasks, most=8, reports=(report,))
        scene = look(devices=8, running=leases("j", tasks))
        scene = replace(scene, now_ms=NOW + number * 600_000)
        found, diary = resizes([job], scene, diary, TrainingRules())
        tasks = found[0].tasks if found else tasks
        assert job.tasks_min <= tasks <= job.tasks_max
        sizes.append(tasks)
    changes = sum(a != b for a, b in pairwise(sizes))
    assert changes <= 5, sizes
    assert len(set(sizes[-10:])) == 1, sizes
