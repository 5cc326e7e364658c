"""Whatever jobs there are: capacity is kept, one kind a job, the same answer, none starves."""

from dataclasses import replace

from gridlease_scheduler.domain.slow.rounds import Memory, RoundJob, Search, decide
from hypothesis import given, settings
from hypothesis import strategies as st

KINDS = ("a", "b", "c")
SEARCH = Search(visits=3_000, depth=6, patience_s=7_200.0, longest_patience_s=7_200.0, stay_s=720.0)
ROUND_S = 360

SPEEDS = st.dictionaries(
    st.sampled_from(KINDS), st.sampled_from((0.0, 1e-9, 0.5, 1.0, 3.7, 1e9)), max_size=3
)
JOBS = st.lists(
    st.builds(
        RoundJob,
        name=st.just(""),
        scale=st.integers(1, 9),
        steps_per_s=SPEEDS,
        age_s=st.sampled_from((0.0, 360.0, 5_000.0, 1e6, 1e12)),
        got_device_s=st.sampled_from((0.0, 1.0, 9_999.0, 1e9)),
        left_steps=st.none() | st.sampled_from((0.0, 1.0, 4e4, 7e5, 1e300)),
        pinned=st.booleans(),
    ),
    max_size=14,
).map(lambda jobs: [replace(job, name=f"j{at}") for at, job in enumerate(jobs)])
FREE = st.dictionaries(st.sampled_from(KINDS), st.integers(0, 12), max_size=3)
RUNNING = st.dictionaries(st.sampled_from([f"j{at}" for at in range(16)]), st.sampled_from(KINDS))


def check(run, free, jobs):
    """No kind is given away twice; who runs can run there."""
    by_name, left = {job.name: job for job in jobs}, dict(free)
    for name, kind in run.items():
        assert by_name[name].steps_per_s[kind] > 0
        left[kind] -= by_name[name].scale
    assert all(count >= 0 for count in left.values())
    return left


@settings(deadline=None, max_examples=150)
@given(FREE, JOBS, RUNNING)
def test_capacity_is_kept_and_nothing_that_fits_is_left_idle(free, jobs, running):
    found = decide(0, free, jobs, Memory(running=running), SEARCH)
    left = check(found.run, free, jobs)
    for job in jobs:
        pinned = job.pinned and job.name in running
        if job.name not in found.run and not pinned:
            for kind, count in left.items():
                assert job.steps_per_s.get(kind, 0.0) <= 0 or count < job.scale


@settings(deadline=None, max_examples=60)
@given(FREE, JOBS, RUNNING, st.randoms(use_true_random=False))
def test_the_same_input_gives_the_same_answer(free, jobs, running, chance):
    first = decide(0, free, jobs, Memory(running=running), SEARCH)
    chance.shuffle(jobs)
    turned = dict(reversed(free.items()))
    assert decide(0, turned, jobs, Memory(running=running), SEARCH) == first


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(FREE, JOBS), min_size=2, max_size=5))
def test_capacity_is_kept_from_one_round_to_the_next(rounds):
    memory = None
    for number, (free, jobs) in enumerate(rounds):
        found = decide(number * ROUND_S, free, jobs, memory, SEARCH)
        check(found.run, free, jobs)
        memory = found.memory


@settings(deadline=None, max_examples=100)
@given(FREE, JOBS)
def test_who_has_waited_longest_beyond_its_patience_runs(free, jobs):
    jobs = [replace(job, pinned=False) for job in jobs]

    def lag(job):
        return job.age_s - 2 * job.served_s - SEARCH.patience_s

    def able(job):
        kinds = [kind for kind, count in free.items() if count >= job.scale]
        return any(job.steps_per_s.get(kind, 0.0) > 0 for kind in kinds)

    behind = [job for job in jobs if lag(job) > 0 and able(job)]
    if behind:
        most = max(lag(job) for job in behind)
        run = decide(0, free, jobs, None, SEARCH).run
        assert any(job.name in run for job in behind if lag(job) == most)


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 3), st.integers(1, 4), st.booleans())
def test_a_wide_job_runs_though_short_ones_never_cease(devices, each_round, unknown):
    """The short ones alone are more than the devices can do; the wide one came first."""
    ages, got = {"wide": 0}, {"wide": 0}
    memory, free, ran = None, {"a": devices}, 0
    for number in range(60):
        for at in range(each_round):
            ages[f"s{number}.{at}"] = got[f"s{number}.{at}"] = 0
        jobs = [
            RoundJob(
                name,
                devices if name == "wide" else 1,
                {"a": 1.0},
                ages[name],
                got[name],
                None if unknown else 1e6 if name == "wide" else 300.0,
            )
            for name in ages
        ]
        found = decide(number * ROUND_S, free, jobs, memory, replace(SEARCH, visits=300))
        check(found.run, free, jobs)
        memory = found.memory
        ages = {name: age + ROUND_S for name, age in ages.items()}
        for name in found.run:
            if name == "wide":
                ran += 1
                got[name] += devices * ROUND_S
            else:
                del ages[name]
    # Patience is 20 rounds; then it shares with those that have run out of theirs, too.
    assert ran >= 6
